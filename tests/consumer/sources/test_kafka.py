"""The consumer group member on a real broker, into a real folder."""

import asyncio
import contextlib
import gzip
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from clearpane.contract.identifiers import new_request_id, partition_of
from clearpane.settings import Settings
from clearpane.store import Store, StoreUnavailable
from consumer.lake import patience
from consumer.lake.chain import Lake
from consumer.lake.draft import Derivation
from consumer.lake.pending import Limits
from consumer.sources import kafka
from consumer.sources.kafka import KafkaSource

pytestmark = pytest.mark.kafka

PARTITIONS = 4
Make = Callable[..., dict[str, Any]]


class Bench:
    """A topic, a lake, and any number of consumers of one group."""

    def __init__(self, bootstrap: str, topic: str, folder: Path, derivation: Derivation) -> None:
        self.bootstrap, self.topic, self.folder = bootstrap, topic, folder
        self.group = f"group-{topic}"
        self.derivation = derivation
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, *, records_max: int = 50, flush_s: float = 0.2, incarnation: int = 0) -> asyncio.Task[None]:
        lake = Lake(
            store=Store.open(str(self.folder)),
            derivation=self.derivation,
            limits=Limits(records_max=records_max, bytes_max=1 << 20),
        )
        settings = Settings(kafka=self.bootstrap, topic=self.topic, kafka_group=self.group, flush_seconds=flush_s, incarnation=incarnation)
        task = asyncio.create_task(KafkaSource(lake, settings).run(lambda: None))
        self.tasks.append(task)
        return task

    async def stop(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self.tasks.remove(task)

    async def send(self, values: list[tuple[int, bytes]]) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all", linger_ms=5)
        await producer.start()
        try:
            sent = [await producer.send(self.topic, value, partition=partition) for partition, value in values]
            await asyncio.gather(*sent)
        finally:
            await producer.stop()

    async def calls(self, envelopes: list[dict[str, Any]]) -> None:
        await self.send([(partition_of(e["request_id"], PARTITIONS), orjson.dumps(e)) for e in envelopes])

    def records(self) -> list[dict[str, Any]]:
        files = (self.folder / "calls").rglob("*.jsonl.gz")
        return [orjson.loads(line) for path in files for line in gzip.decompress(path.read_bytes()).splitlines()]

    def ids(self) -> Counter[str]:
        return Counter(record["request_id"] for record in self.records())

    async def until(self, count: int, timeout_s: float = 40) -> None:
        async with asyncio.timeout(timeout_s):
            while len(self.records()) < count:
                await asyncio.sleep(0.1)

    async def settled(self, quiet_s: float = 1.5) -> None:
        """Nothing more comes."""
        before = -1
        while (now := len(self.records())) != before:
            before = now
            await asyncio.sleep(quiet_s)

    async def commit(self, offset_of: Callable[[int], int]) -> None:
        """What an operator's reset of the group's offsets does; no member may be alive."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id=self.group, enable_auto_commit=False)
        await consumer.start()
        consumer.assign([TopicPartition(self.topic, p) for p in range(PARTITIONS)])
        await consumer.commit({TopicPartition(self.topic, p): offset_of(p) for p in range(PARTITIONS)})
        await consumer.stop()

    async def ends(self) -> dict[int, int]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        await consumer.start()
        found = await consumer.end_offsets([TopicPartition(self.topic, p) for p in range(PARTITIONS)])
        await consumer.stop()
        return {tp.partition: end for tp, end in found.items()}


@pytest.fixture
async def bench(kafka_bootstrap: str, kafka_topic: str, tmp_path: Path, derivation: Derivation) -> AsyncIterator[Bench]:
    found = Bench(kafka_bootstrap, kafka_topic, tmp_path / "lake", derivation)
    yield found
    for task in list(found.tasks):
        await found.stop(task)


async def test_every_message_is_accounted_for(bench: Bench, envelope: Make) -> None:
    sent = [envelope() for _ in range(300)]
    started = [e | {"event": "started"} for e in sent[:100]]
    poison = [b"", b"{", b"[1]", b'{"schema":"call.v9"}', bytes(range(256)), b"[" * 5000]
    bench.start()
    await bench.calls(started)
    await bench.calls(sent)
    await bench.send([(0, value) for value in poison])
    await bench.until(len(sent) + len(poison))
    await bench.settled()
    ids = bench.ids()
    assert ids.pop(None) == len(poison)  # type: ignore[call-overload]
    assert ids == Counter(e["request_id"] for e in sent)
    raw = [r for r in bench.records() if r["request_id"] is None]
    assert all(r["derived"]["parse_error"] for r in raw)
    assert len({(r["lake"]["log"], r["lake"]["offset"]) for r in bench.records()}) == len(bench.records())


@pytest.mark.parametrize("reset", ["zero", "middle", "end", "beyond"])
async def test_group_offsets_are_not_believed(bench: Bench, envelope: Make, reset: str) -> None:
    sent = [envelope() for _ in range(200)]
    first = bench.start(records_max=20)
    await bench.calls(sent[:100])
    await bench.until(100)
    await bench.stop(first)
    await bench.calls(sent[100:])
    ends = await bench.ends()
    offset_of = {"zero": lambda p: 0, "middle": lambda p: ends[p] // 3, "end": lambda p: ends[p], "beyond": lambda p: ends[p] + 1000}
    await bench.commit(offset_of[reset])
    bench.start(records_max=20)
    await bench.until(200)
    await bench.settled()
    assert bench.ids() == Counter(e["request_id"] for e in sent)


async def test_consumers_come_and_go(bench: Bench, envelope: Make) -> None:
    """Rebalances under load: buffers are dropped, positions are found again."""
    sent = [envelope() for _ in range(600)]
    bench.start(records_max=15, flush_s=0.05)
    for batch in range(6):
        sending = asyncio.create_task(bench.calls(sent[batch * 100 : batch * 100 + 100]))
        other = bench.start(records_max=7, flush_s=0.05)
        await asyncio.sleep(0.7)
        await bench.stop(other if batch % 2 else bench.tasks[0])
        await sending
    await bench.until(600)
    await bench.settled()
    assert bench.ids() == Counter(e["request_id"] for e in sent)


async def test_second_copies_are_dropped(bench: Bench, envelope: Make) -> None:
    late, early, both, twice = (envelope() for _ in range(4))
    bench.start()
    await bench.calls([early])
    await bench.until(1)
    await bench.calls([early | {"attempt": 2}, late | {"attempt": 2}, both, both | {"attempt": 2}, twice | {"attempt": 2}])
    await bench.until(4)
    await bench.calls([late, early | {"attempt": 3}, twice | {"attempt": 3}, twice])
    marker = envelope()
    for partition in range(PARTITIONS):
        await bench.send([(partition, orjson.dumps(marker | {"request_id": new_request_id()}))])
    await bench.until(4 + PARTITIONS)
    await bench.settled()
    assert set(bench.ids().values()) == {1}
    assert len(bench.ids()) == 4 + PARTITIONS


async def test_heads_and_indexes_that_are_gone(bench: Bench, envelope: Make) -> None:
    sent = [envelope() for _ in range(120)]
    first = bench.start(records_max=10)
    await bench.calls(sent[:80])
    await bench.until(80)
    await bench.stop(first)
    for path in [*(bench.folder / "heads").iterdir(), *(bench.folder / "index").rglob("*.parquet")]:
        path.unlink()
    await bench.calls([e | {"attempt": 2} for e in sent[:80]] + sent[80:])
    bench.start(records_max=10)
    await bench.until(120)
    await bench.settled()
    assert bench.ids() == Counter(e["request_id"] for e in sent)


@pytest.mark.parametrize("later", [4, 200])
async def test_a_topic_made_again_stops_the_partition(bench: Bench, envelope: Make, caplog: pytest.LogCaptureFixture, later: int) -> None:
    """Whether it holds less than the lake, or by now more."""
    sent = [envelope() for _ in range(40)]
    first = bench.start()
    await bench.calls(sent)
    await bench.until(40)
    await bench.stop(first)
    admin = AIOKafkaAdminClient(bootstrap_servers=bench.bootstrap)
    await admin.start()
    await admin.delete_topics([bench.topic])
    await asyncio.sleep(1)
    await admin.create_topics([NewTopic(bench.topic, num_partitions=PARTITIONS, replication_factor=1)])
    await admin.close()
    again = [envelope() for _ in range(later)]
    await asyncio.sleep(1)
    await bench.calls(again)
    with caplog.at_level(logging.ERROR):
        second = bench.start()
        async with asyncio.timeout(30):
            while caplog.text.count("raise `incarnation`") < PARTITIONS:
                await asyncio.sleep(0.1)
    await bench.stop(second)
    assert len(bench.records()) == 40
    bench.start(incarnation=1)
    await bench.until(40 + later)
    assert bench.ids() == Counter(e["request_id"] for e in sent + again)


async def test_retention_that_overtook_us_stops_only_its_partition(bench: Bench, envelope: Make, caplog: pytest.LogCaptureFixture) -> None:
    first = bench.start()
    await bench.calls([envelope() for _ in range(80)])
    await bench.until(80)
    await bench.stop(first)
    ends = await bench.ends()
    for partition in range(PARTITIONS):
        await bench.send([(partition, orjson.dumps(envelope())) for _ in range(5)])
    admin = AIOKafkaAdminClient(bootstrap_servers=bench.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(bench.topic, 0): RecordsToDelete(before_offset=ends[0] + 3)})
    await admin.close()
    with caplog.at_level(logging.ERROR):
        second = bench.start()
        await bench.until(80 + 15)
        await bench.settled()
    assert len(bench.records()) == 95
    assert f"offsets {ends[0]} to {ends[0] + 2}" in caplog.text
    await bench.stop(second)
    bench.start(incarnation=1)  # as the words say; the other partitions go on where they were
    await bench.until(80 + 15 + 2)
    await bench.settled()
    assert set(bench.ids().values()) == {1}
    assert len(bench.records()) == 97


class Moody(Store):
    """A real folder behind a store that can be told to fail."""

    down = False

    async def create(self, key: str, data: bytes) -> None:
        if Moody.down and key.startswith("calls/"):
            raise StoreUnavailable("told to")
        await super().create(key, data)


async def test_a_lake_that_is_down_holds_back_and_keeps_its_membership(
    bench: Bench, envelope: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held is bounded, though far more waits in Kafka; afterwards nothing is lost or doubled."""
    monkeypatch.setattr(patience, "PAUSE_S_MAX", 0.5)
    sessions: list[Any] = []
    real = kafka._Session.__init__

    def noted(self: Any, *args: Any) -> None:
        real(self, *args)
        sessions.append(self)

    monkeypatch.setattr(kafka._Session, "__init__", noted)
    monkeypatch.setattr(kafka, "FETCH_BYTES_MAX", 20_000)
    lake = Lake(
        store=Moody(Store.open(str(bench.folder))._backend),
        derivation=bench.derivation,
        limits=Limits(records_max=50, bytes_max=65_536),
    )
    settings = Settings(
        kafka=bench.bootstrap,
        topic=bench.topic,
        kafka_group=bench.group,
        flush_seconds=0.1,
        object_bytes_max=65_536,
        kafka_record_bytes_max=20_000,
    )
    sent = [envelope() for _ in range(1500)]
    Moody.down = True
    bench.tasks.append(asyncio.create_task(KafkaSource(lake, settings).run(lambda: None)))
    await bench.calls(sent)
    most = 0
    for _ in range(60):
        await asyncio.sleep(0.1)
        most = max([most, *(sum(p.bytes for p in session._partitions.values()) for session in sessions)])
    total = sum(len(orjson.dumps(e)) for e in sent)
    assert total > 4 * 4 * 65_536
    assert 65_536 < most < 4 * 65_536 + PARTITIONS * 40_000
    assert bench.records() == []
    Moody.down = False
    await bench.until(len(sent))
    await bench.settled()
    assert bench.ids() == Counter(e["request_id"] for e in sent)
    assert len(sessions) == 1


async def test_a_broker_that_dies_and_comes_back(own_kafka: Any, tmp_path: Path, derivation: Derivation, envelope: Make) -> None:
    bench = Bench(own_kafka.bootstrap, "calls", tmp_path / "lake", derivation)
    admin = AIOKafkaAdminClient(bootstrap_servers=bench.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(bench.topic, num_partitions=PARTITIONS, replication_factor=1)])
    await admin.close()
    sent = [envelope() for _ in range(100)]
    running = bench.start()
    await bench.calls(sent[:50])
    await bench.until(50)
    own_kafka.kill()
    await asyncio.sleep(3)
    assert not running.done()
    await own_kafka.start()
    await bench.calls(sent[50:])
    await bench.until(100)
    await bench.settled()
    await bench.stop(running)
    assert bench.ids() == Counter(e["request_id"] for e in sent)
