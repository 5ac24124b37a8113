"""Promise 2: nothing lost, nothing doubled. Real processes, real signals, a real broker and store."""

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from tests.conftest import Broker
from tests.e2e.system import Load, Process, clearpane, free_port, judge, rows, settled

pytestmark = [pytest.mark.timeout(600)]


class Whole:
    """Fake provider, proxy and consumer as processes of their own."""

    def __init__(self, folder: Path, lake: str, kafka: str | None, topic: str) -> None:
        self.lake, self.port = lake, free_port()
        self.admin_port = free_port()
        self._folder, self._kafka, self._topic = folder, kafka, topic
        self._intake = f"http://127.0.0.1:{free_port()}"
        self._provider_port = free_port()
        self.provider: Process
        self.consumer: Process
        self.proxy: Process

    async def start(self, *, workers: int = 1, pace: str = "0") -> None:
        delivery = ["--intake", self._intake, "--flush-seconds", "0.5"]
        if self._kafka:
            delivery += ["--kafka", self._kafka, "--topic", self._topic]
        self.provider = Process(self._folder, "provider", "clearpane.cli.fake", "--port", str(self._provider_port), "--pace", pace)
        self.consumer = Process(
            self._folder, "consumer", "clearpane.cli", "consumer", "--lake", self.lake, "--data", str(self._folder / "consumer"),
            "--admin", f"127.0.0.1:{free_port()}", *delivery,
        )  # fmt: skip
        upstream = f"http://127.0.0.1:{self._provider_port}"
        self.proxy = Process(
            self._folder, "proxy", "clearpane.cli", "proxy", "--data", str(self._folder / "proxy"), "--listen", f"127.0.0.1:{self.port}",
            "--admin", f"127.0.0.1:{self.admin_port}", "--default-upstream", upstream, "--upstream", f"openai={upstream}",
            "--upstream", f"anthropic={upstream}", "--workers", str(workers), *delivery,
        )  # fmt: skip
        for process in (self.provider, self.consumer, self.proxy):
            await process.ready()

    def stop(self) -> None:
        for name in ("proxy", "consumer", "provider"):
            if hasattr(self, name):
                getattr(self, name).stop()


def p99(load: Load, added_ms: dict[str, float], since: float, until: float) -> float:
    """Of `proxy_ms` of the calls that began in this time."""
    values = sorted(added_ms[name] for name, outcome in load.outcomes.items() if since <= outcome.began_s < until)
    return values[int(len(values) * 0.99)]


async def verified(lake: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(await clearpane("verify", "--lake", lake, "--json", codes=(0, 1)))
    assert report["clean"], report["findings"][:5]
    return report


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.s3
async def test_ten_thousand_mixed_calls_are_each_in_the_lake_once(
    tmp_path: Path, kafka_bootstrap: str, kafka_topic: str, s3_lake: str, stop_after: list[Whole]
) -> None:
    whole = Whole(tmp_path, s3_lake, kafka_bootstrap, kafka_topic)
    stop_after.append(whole)
    await whole.start(workers=2)
    load = Load(whole.port, calls=10_000, connections=32)
    await load.run()
    assert {(outcome.status, outcome.whole) for outcome in load.outcomes.values()} == {(200, True)}
    found = await settled(s3_lake, 10_000, 120)
    assert judge(load, found) == {"complete": 10_000}
    assert (await verified(s3_lake))["records"] == 10_000
    counted = await clearpane("query", "--lake", s3_lake, "--json", "select count(*) as calls, count(cost_total) as priced from calls")
    assert json.loads(counted) == {"calls": 10_000, "priced": 10_000}
    sources = Counter(row["usage_source"] for row in found)
    assert sources == {"provider": 8333, "estimated": 1667}  # of six kinds, the chat stream does not ask for its usage
    assert {row["log"][:2] for row in found} == {"k-"}


@pytest.mark.kafka
@pytest.mark.slow
async def test_kafka_killed_in_mid_load_and_brought_back(tmp_path: Path, own_kafka: Broker, stop_after: list[Whole]) -> None:
    lake = str(tmp_path / "lake")
    whole = Whole(tmp_path, lake, own_kafka.bootstrap, "outage")
    stop_after.append(whole)
    await whole.start()
    load = Load(whole.port, calls=1_000_000, connections=8, pause_s=0.05)
    running = asyncio.create_task(load.run())
    await asyncio.sleep(8)
    killed = time.monotonic()
    own_kafka.kill()
    await asyncio.sleep(12)
    during = await rows(lake)
    back = time.monotonic()
    await own_kafka.start()
    await asyncio.sleep(8)
    load.stopped = True
    await running
    assert {(outcome.status, outcome.whole) for outcome in load.outcomes.values()} == {(200, True)}
    found = await settled(lake, len(load.outcomes), 90)
    judge(load, found)
    assert len(found) == len(load.outcomes)
    await verified(lake)
    assert any(row["log"].startswith("h-") for row in during), "nothing arrived by HTTP during the outage"
    assert {row["log"][:2] for row in found} == {"h-", "k-"}
    added = {row["client_request_id"]: row["proxy_ms"] for row in found}
    print(
        f"\nthe proxy's own time, p99: {p99(load, added, 0, killed):.2f} ms before, {p99(load, added, killed, back):.2f} ms during, "
        f"{p99(load, added, back, float('inf')):.2f} ms after"
        f"\nKafka killed under load: {len(found)} calls, p99 {load.p99_s(until=killed) * 1000:.1f} ms before, "
        f"{load.p99_s(killed, back) * 1000:.1f} ms during, {load.p99_s(back) * 1000:.1f} ms after; "
        f"{sum(row['log'].startswith('h-') for row in found)} by HTTP, {sum(row['attempt'] > 1 for row in found)} sent twice"
    )


@pytest.mark.slow
@pytest.mark.parametrize("delivery", ["http", pytest.param("kafka", marks=[pytest.mark.kafka])])
@pytest.mark.parametrize("victim", ["proxy.worker", "proxy.shipper", "consumer.service"])
async def test_a_part_killed_again_and_again_under_load(
    victim: str, delivery: str, tmp_path: Path, stop_after: list[Whole], request: pytest.FixtureRequest
) -> None:
    bootstrap = topic = None
    if delivery == "kafka":
        bootstrap, topic = request.getfixturevalue("kafka_bootstrap"), f"killed-{tmp_path.name}"
    lake = str(tmp_path / "lake")
    whole = Whole(tmp_path, lake, bootstrap, topic or "unused")
    stop_after.append(whole)
    await whole.start(workers=2)
    load = Load(whole.port, calls=1_000_000, connections=8)
    running = asyncio.create_task(load.run())
    kills, enough = 0, 10 if request.config.getoption("--full") else 3
    while kills < enough:
        await asyncio.sleep(0.8)
        kills += (whole.consumer if victim == "consumer.service" else whole.proxy).kill_child(victim)
    await asyncio.sleep(2)
    load.stopped = True
    await running
    complete = sum(outcome.whole for outcome in load.outcomes.values())
    found = await settled(lake, complete, 90)
    await asyncio.sleep(3)  # interrupted records come last
    found = await rows(lake)
    ends = judge(load, found)
    await verified(lake)
    broken = [name for name, outcome in load.outcomes.items() if not outcome.whole and outcome.status is not None]
    if victim == "proxy.worker":
        assert ends["interrupted"] > 0 or not broken
    else:
        assert all(outcome.whole for outcome in load.outcomes.values())
        assert set(ends) == {"complete"}
    print(f"\n{victim} killed {kills} times over {delivery}: {len(load.outcomes)} calls, ends {dict(ends)}")


@pytest.mark.kafka
async def test_started_is_on_the_topic_before_a_long_stream_ends(
    tmp_path: Path, kafka_bootstrap: str, kafka_topic: str, stop_after: list[Whole]
) -> None:
    whole = Whole(tmp_path, str(tmp_path / "lake"), kafka_bootstrap, kafka_topic)
    stop_after.append(whole)
    await whole.start(pace="20")  # a stream of some twenty seconds
    consumer = AIOKafkaConsumer(kafka_topic, bootstrap_servers=kafka_bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    load = Load(whole.port, calls=2, connections=2)  # the second is the stream
    running = asyncio.create_task(load.run())
    try:
        async with asyncio.timeout(60):
            while True:
                message = await consumer.getone()
                envelope = json.loads(message.value)
                if envelope["client_request_id"] == "call-1":
                    break
        assert envelope["event"] == "started"
        assert envelope["response"]["status"] == 200
        assert not running.done()
        assert message.key.decode() == envelope["request_id"]
        assert dict(message.headers) == {"clearpane-schema": b"call.v1"}
        await asyncio.wait_for(running, 120)
        assert load.outcomes["call-1"].duration_s > 5
    finally:
        running.cancel()
        await consumer.stop()
