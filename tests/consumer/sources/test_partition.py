"""One partition's backlog: how much of it is decoded at a time."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from clearpane.contract.lake import parse_key
from clearpane.store import Store
from consumer.lake.chain import Lake
from consumer.lake.draft import Derivation
from consumer.lake.messages import Candidate, Message
from consumer.lake.pending import Limits
from consumer.sources import partition
from consumer.sources.partition import Pace, Partition

MESSAGES = 95


class Port:
    """Kafka, as far as a partition asks for it."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.committed = 0

    async def bounds(self) -> tuple[int, int]:
        return 0, MESSAGES

    def begin(self, offset: int) -> None:
        self.begun.set()

    def hold(self) -> None:
        return

    async def commit(self, offset: int) -> bool:
        self.committed = offset
        return True


@pytest.mark.parametrize(
    ("records_max", "bytes_max", "at_once"),
    [(10, 1 << 20, 10), (1000, 1, 1), (1000, 1 << 20, MESSAGES)],
    ids=["by number", "by size", "all"],
)
async def test_a_backlog_stays_packed_until_its_object_is_due(
    tmp_path: Path,
    derivation: Derivation,
    envelope: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    records_max: int,
    bytes_max: int,
    at_once: int,
) -> None:
    sizes: list[int] = []
    decode = partition._decoded

    def counted(messages: list[Message]) -> list[tuple[int, Candidate | None]]:
        sizes.append(len(messages))
        return decode(messages)

    monkeypatch.setattr(partition, "_decoded", counted)
    store, port, now_ms = Store.open(str(tmp_path)), Port(), int(time.time() * 1000)
    lake = Lake(store=store, derivation=derivation, limits=Limits(records_max=records_max, bytes_max=bytes_max))
    found = Partition(lake, "k-t-0-0", port, Pace(flush_s=0.0, gate=asyncio.Semaphore(1)))
    running = asyncio.create_task(found.run())
    try:
        async with asyncio.timeout(60):
            await port.begun.wait()
            found.offer([Message(offset, now_ms, orjson.dumps(envelope())) for offset in range(MESSAGES)])
            while port.committed < MESSAGES:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert max(sizes) == at_once
    assert sum(sizes) == MESSAGES
    assert found.bytes == 0
    starts = [parsed[1].start for entry in await store.list("calls/") if (parsed := parse_key(entry.key))]
    assert len(starts) == -(-MESSAGES // at_once)
