"""One assigned partition: collects what Kafka delivers, and appends it to its chain when it is due.

Knows no Kafka client: what it needs of one is the `Port`.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from consumer import metrics
from consumer.lake.chain import Chain, Lake
from consumer.lake.messages import Candidate, Message, decode
from consumer.lake.pending import Pending
from consumer.lake.tail import ChainBroken

log = logging.getLogger(__name__)


_MADE_AGAIN = "the topic was deleted and made again, or lost data. If that was meant, raise `incarnation` to begin a new chain"
BROKEN_PAUSE_S = 30.0


class Port(Protocol):
    """One partition as the group's member sees it. No method raises but Revoked."""

    async def bounds(self) -> tuple[int, int]:
        """(first offset that is kept, next offset to be written)."""

    def begin(self, offset: int) -> None:
        """Deliver from `offset` on."""

    def hold(self) -> None:
        """Deliver nothing, until `begin`."""

    async def commit(self, offset: int) -> bool:
        """For lag monitoring only. False: the partition has another owner."""


class Revoked(Exception):
    """The partition is no longer ours."""


class OutOfRange(Exception):
    """Kafka does not have what comes next: somebody has to decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    flush_s: float
    gate: asyncio.Semaphore  # of all partitions: writes at once


class Partition:
    def __init__(self, lake: Lake, log_name: str, port: Port, pace: Pace, earlier: Sequence[str] = ()) -> None:
        """`earlier`: the logs of the partition's earlier incarnations, the newest first."""
        self.log_name = log_name
        self.first_at: float | None = None  # monotonic: when the oldest pending candidate came
        self.tail: int | None = None
        self.delivering = False  # between `begin` and `hold`
        self._lake = lake
        self._port = port
        self._pace = pace
        self._earlier = earlier
        self._arrived: list[Message] = []
        self._arrived_bytes = 0
        self._pending = Pending(end=0)
        self._wake = asyncio.Event()
        self._witness: tuple[int, str] | None = None  # (offset, request id) that Kafka must still have
        self._reopen = False

    @property
    def bytes(self) -> int:
        """Of messages that were delivered and are not settled."""
        return self._arrived_bytes + self._pending.bytes

    def offer(self, messages: list[Message]) -> None:
        """What came next, in order."""
        self._arrived += messages
        self._arrived_bytes += sum(len(m.value) for m in messages)
        self._wake.set()

    def reopen(self) -> None:
        """Something about the position is wrong: find it again."""
        self._hold()
        self._reopen = True
        self._wake.set()

    async def run(self) -> None:
        """Until revoked, or until a person is needed. Can be cancelled at any point."""
        try:
            while True:
                await self._surely()
        except Revoked:
            return
        except (OutOfRange, ChainBroken) as error:
            self._forget()
            log.error("%s stands still, other partitions go on: %s", self.log_name, error)  # noqa: TRY400  # the words say it all
            metrics.partitions_stopped.inc()
            try:
                await asyncio.Event().wait()  # still ours: until a rebalance or a restart, nobody else may think it idle
            finally:
                metrics.partitions_stopped.dec()

    async def _surely(self) -> None:
        """A defect that shows in one partition is alarmed and tried again there; the others go on."""
        try:
            await self._live()
        except (Revoked, OutOfRange, ChainBroken):
            raise
        except Exception:
            log.exception("%s broke, beginning again from its tail in %.0f s", self.log_name, BROKEN_PAUSE_S)
            self._forget()
            await asyncio.sleep(BROKEN_PAUSE_S)

    async def _live(self) -> None:
        """From one opening of the chain to the next."""
        self._forget()
        chain = await Chain.open(self._lake, self.log_name, genesis=self._genesis)
        await self._check_range(chain)
        self._pending = Pending(end=chain.tail.end)
        self.tail = chain.tail.end
        self._port.begin(self._witness[0] if self._witness is not None else chain.tail.end)
        self.delivering = True
        while not self._reopen:
            await self._collect()
            async with self._pace.gate:
                await chain.append(self._pending)
            self.first_at = None
            if chain.tail.end != self.tail:
                self.tail = chain.tail.end
                if not await self._port.commit(self.tail):
                    metrics.commits_refused.inc()
                    return

    def _hold(self) -> None:
        self.delivering = False
        self._port.hold()

    def _forget(self) -> None:
        self._hold()
        self._reopen = False
        self._witness = None
        self._arrived, self._arrived_bytes = [], 0
        self._pending = Pending(end=0)
        self.first_at = None

    async def _genesis(self) -> int:
        """Where a new chain begins: at what Kafka keeps; in a topic of which an earlier chain has a part, behind that."""
        first, end = await self._port.bounds()
        for name in self._earlier:
            chain = await Chain.open(self._lake, name)
            if chain.tail.key is not None:
                await chain.refresh()
                last_offset, last_id = chain.tail.last_offset, chain.tail.last_id
                if last_offset is None or not first <= last_offset < end or await self._call_at(last_offset) != last_id:
                    return first
                return chain.tail.end
        return first

    async def _call_at(self, offset: int) -> str | None:
        """The call whose message Kafka has there."""
        self._port.begin(offset)
        self.delivering = True
        while not self._arrived and not self._reopen:
            self._wake.clear()
            await self._wake.wait()
        candidate = decode(self._arrived[0]) if self._arrived and self._arrived[0].offset == offset else None
        self._forget()
        return candidate.request_id if candidate is not None else None

    async def _check_range(self, chain: Chain) -> None:
        first, end = await self._port.bounds()
        last_offset, last_id = chain.tail.last_offset, chain.tail.last_id
        if last_offset is not None and last_id is not None and first <= last_offset < end:
            self._witness = (last_offset, last_id)
        if chain.tail.end < first:
            await chain.refresh()  # perhaps only the head is behind
        if chain.tail.end < first:
            raise OutOfRange(
                f"Kafka's retention deleted offsets {chain.tail.end} to {first - 1} before they reached the lake. They are lost to it. "
                f"Give the topic a longer retention, then raise `incarnation` to go on from {first} in a new chain"
            )
        if chain.tail.end > end:
            raise OutOfRange(f"the lake holds this partition up to {chain.tail.end}, but Kafka ends at {end}: {_MADE_AGAIN}")

    def _check_witness(self, decoded: list[tuple[int, Candidate | None]]) -> None:
        """Delivery begins at the last call that is in the lake: only the same topic has it there."""
        if self._witness is None:
            return
        (offset, name), self._witness = self._witness, None
        found, candidate = decoded[0]
        if found != offset or candidate is None or candidate.request_id != name:
            raise OutOfRange(f"the lake has call {name} at offset {offset}, but Kafka has another message there: {_MADE_AGAIN}")

    async def _collect(self) -> None:
        """Until what is pending has to be written, or the chain to be opened again."""
        while not self._reopen:
            await self._take()
            if (wait_s := self._due_in_s()) is not None and wait_s <= 0:
                return
            self._wake.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _take(self) -> None:
        """Decode what arrived: in a thread, because heartbeats share the loop."""
        while self._arrived:
            decoded = await asyncio.to_thread(_decoded, self._packed())
            self._check_witness(decoded)
            for offset, candidate in decoded:
                self._pending.add(offset, candidate)
                metrics.started_skipped.inc(candidate is None)
            if self.first_at is None and self._pending.candidates:
                self.first_at = time.monotonic()
            if self._full():
                return

    def _packed(self) -> list[Message]:
        """What the next object has room for, and at least one; the rest of a backlog stays as it came: decoded, it is far larger."""
        limits = self._lake.limits
        records, size = limits.records_max - len(self._pending.candidates), limits.bytes_max - self._pending.bytes
        taken: list[Message] = []
        for message in self._arrived:
            if taken and (len(taken) >= records or size <= 0):
                break
            taken.append(message)
            size -= len(message.value)
        del self._arrived[: len(taken)]
        self._arrived_bytes -= sum(len(message.value) for message in taken)
        return taken

    def _due_in_s(self) -> float | None:
        """Seconds until the next write; None: nothing to write."""
        if self.first_at is None:
            return None
        return 0.0 if self._full() else self.first_at + self._pace.flush_s - time.monotonic()

    def _full(self) -> bool:
        limits = self._lake.limits
        return len(self._pending.candidates) >= limits.records_max or self._pending.bytes >= limits.bytes_max


def _decoded(messages: list[Message]) -> list[tuple[int, Candidate | None]]:
    return [(message.offset, decode(message)) for message in messages]
