"""Real consumer processes on a real broker and a real S3 server, killed and frozen at random under load."""

import asyncio
import gzip
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from clearpane.contract import members
from clearpane.contract.identifiers import partition_of
from clearpane.store import Store

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
PARTITIONS = 4
Make = Callable[..., dict[str, Any]]

# The shortest session that a broker allows by default: a frozen member is thrown out after it.
PROGRAM = """
import asyncio, sys
import orjson
from clearpane.runtime import logs
from clearpane.settings import Settings
from consumer import service
from consumer.sources import kafka
kafka.SESSION_TIMEOUT_MS, kafka.HEARTBEAT_MS = 6000, 500
logs.start("info")
settings = Settings(**orjson.loads(sys.argv[1]))
asyncio.run(service.run(settings, asyncio.Event().wait(), lambda event: print(event["event"], flush=True)))
"""


class Fleet:
    """Consumer processes of one group."""

    def __init__(self, settings: dict[str, Any], log: Path) -> None:
        self._settings = settings
        self._log = log
        self.alive: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", PROGRAM, orjson.dumps(self._settings).decode()]
        with self._log.open("ab") as log:
            process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=log)
        self.alive.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        self.alive.remove(process)


async def ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(40):
        assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"


@pytest.fixture
def fleet(kafka_bootstrap: str, kafka_topic: str, s3_lake: str, tmp_path: Path) -> Iterator[Fleet]:
    settings = {"kafka": kafka_bootstrap, "topic": kafka_topic, "kafka_group": kafka_topic, "lake": s3_lake, "flush_seconds": 0.1}
    found = Fleet(settings | {"object_records_max": 40}, tmp_path / "consumers.log")
    yield found
    for process in list(found.alive):
        found.kill(process)


async def send(bootstrap: str, topic: str, envelopes: list[dict[str, Any]], *, pause_s: float = 0.0) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        for e in envelopes:
            await producer.send(topic, orjson.dumps(e), partition=partition_of(e["request_id"], PARTITIONS))
            await asyncio.sleep(pause_s)
        await producer.flush()
    finally:
        await producer.stop()


async def lake_of(store: Store) -> tuple[Counter[str], list[str]]:
    """(ids, what is wrong with the chains)."""
    ids: Counter[str] = Counter()
    problems = []
    ends: dict[str, tuple[int, str | None]] = {}
    for entry in sorted(await store.list("calls/"), key=lambda found: found.key.rpartition("-")[2]):
        data = await store.get(entry.key)
        manifest, _ = members.unseal(data)
        if ends.get(manifest.log, (manifest.start, None)) != (manifest.start, manifest.previous_sha256):
            problems.append(f"{entry.key} does not follow")
        ends[manifest.log] = (manifest.end, manifest.sha256)
        ids.update(orjson.loads(line)["request_id"] for line in gzip.decompress(data).splitlines())
    indexes = {entry.key.removeprefix("index/").removesuffix(".parquet") for entry in await store.list("index/")}
    calls = {entry.key.removeprefix("calls/").removesuffix(".jsonl.gz") for entry in await store.list("calls/")}
    return ids, problems + [f"no index of {key}" for key in calls - indexes]


async def settled(store: Store, count: int) -> tuple[Counter[str], list[str]]:
    async with asyncio.timeout(60):
        while (found := await lake_of(store))[0].total() < count:
            await asyncio.sleep(0.5)
    await asyncio.sleep(1.5)
    return await lake_of(store) if count else found


async def test_killed_again_and_again(fleet: Fleet, kafka_bootstrap: str, kafka_topic: str, s3_lake: str, envelope: Make) -> None:
    dice = random.Random(7)
    sent = [envelope() for _ in range(1200)]
    for process in (fleet.start(), fleet.start()):
        await ready(process)
    sending = asyncio.create_task(send(kafka_bootstrap, kafka_topic, sent, pause_s=0.015))
    for _ in range(7):
        await asyncio.sleep(1 + dice.random())
        fleet.kill(dice.choice(fleet.alive))
        await ready(fleet.start())
    await sending
    ids, problems = await settled(Store.open(s3_lake), len(sent))
    assert problems == []
    assert ids == Counter(e["request_id"] for e in sent)


async def test_a_zombie_wakes(fleet: Fleet, kafka_bootstrap: str, kafka_topic: str, s3_lake: str, envelope: Make) -> None:
    """Frozen for longer than its session, with full buffers; another takes over; then it goes on where it was."""
    sent = [envelope() for _ in range(1500)]
    zombie = fleet.start()
    await ready(zombie)
    sending = asyncio.create_task(send(kafka_bootstrap, kafka_topic, sent, pause_s=0.01))
    await asyncio.sleep(3)
    zombie.send_signal(signal.SIGSTOP)
    await ready(fleet.start())
    await asyncio.sleep(4)
    zombie.send_signal(signal.SIGCONT)
    await sending
    ids, problems = await settled(Store.open(s3_lake), len(sent))
    assert problems == []
    assert ids == Counter(e["request_id"] for e in sent)
    assert zombie.poll() is None
