"""Tail: one spool, followed from its first frame until it is empty and its worker gone."""

import asyncio
import logging
from pathlib import Path

from clearpane.contract.identifiers import partition_of
from clearpane.settings import Settings
from proxy.shipper import account, metrics
from proxy.shipper.delivery import Choice, Ways
from proxy.shipper.envelopes import Message
from proxy.shipper.journal import Entry
from proxy.shipper.kafka import Kafka
from proxy.shipper.ledger import Ledger
from proxy.shipper.poison import Poison
from proxy.shipper.post import Intake
from proxy.shipper.posting import Posting
from proxy.shipper.publishing import Publishing
from proxy.shipper.records import Records, Wanted
from proxy.shipper.tracker import Call
from proxy.shipper.tracker import Path as Way
from proxy.spool import (
    ADMITTED,
    COMPLETED,
    GAP,
    REASONS,
    STARTED,
    Claim,
    Frame,
    SpoolDamaged,
    SpoolReader,
    drop_segment,
    drop_spool,
    segments,
)

log = logging.getLogger(__name__)

_READ_FRAMES_MAX = 1000
_READ_BYTES_MAX = 4 << 20
# Messages that wait for a way at the same time; reached only by bodies that unpack to many times their size.
_BUILD_BYTES_MAX = 32 << 20
# A living spool is looked at again after this time: what a record waits at most before it is sent.
_POLL_S = 0.05
_CLEAN_S = 1.0
_RETRY_S = 1.0


class Tail:
    """`claim` is the spool's lock once its worker is dead."""

    def __init__(self, folder: Path, settings: Settings, kafka: Kafka | None, intake: Intake | None) -> None:
        self.folder = folder
        self.claim: Claim | None = None
        self._settings = settings
        self._ledger = Ledger(folder)
        self._poison = Poison(settings.data / "poison")
        self._records = Records(folder, self._poison)
        self._reader = SpoolReader(folder)
        self._publishing = Publishing(kafka, self._ledger, self._records, intake=intake is not None) if kafka else None
        self._posting = (
            Posting(
                intake, self._ledger, self._records,
                spool_id=folder.name, flush_s=settings.flush_seconds, post_bytes_max=settings.post_bytes_max,
            )
            if intake
            else None
        )  # fmt: skip
        self._waiting: list[tuple[Call, Message]] = []  # no way chosen yet
        self._shrunk: set[int] = set()
        self._caught_up = False  # with what an earlier life of the shipper had read
        self._ended = False  # the worker is dead and everything read
        self._moved = True
        self._corrupt_bytes = 0
        self._clean_at_s = 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing is left to read or to send."""
        tracker = self._ledger.tracker
        return not self._moved and not self._waiting and not any(call.path for call in tracker.calls.values())

    @property
    def spooled(self) -> int:
        tracker = self._ledger.tracker
        return len(self._waiting) + sum(call.path is not None for call in tracker.calls.values())

    @property
    def oldest(self) -> str | None:
        """`recorded_at` of the oldest record that is not acknowledged."""
        known = [message.recorded_at for _, message in self._waiting]
        known += [call.recorded_at for call in self._ledger.tracker.calls.values() if call.recorded_at and call.path]
        return min(known, default=None)

    @property
    def journal_bytes(self) -> int:
        return self._ledger.bytes

    def hurry(self) -> None:
        """What is there is sent without being collected; `idle` means from now on that a look at the spool found nothing."""
        self._moved = True
        if self._posting:
            self._posting.hurry()

    async def run(self, stopping: asyncio.Event, flush_timeout_s: float) -> None:
        """Until the spool is gone, or `stopping`; then what is under way has its time to end. Raises OSError at the start only."""
        await self._ledger.open()
        posting = asyncio.create_task(self._posting.run()) if self._posting else None
        try:
            while not stopping.is_set() and not self._is_done():
                if posting is not None and posting.done():
                    await posting
                self._moved = await self._turn()
                if not self._moved:
                    await _wait(stopping, _POLL_S)
        finally:
            await self._finish(posting, flush_timeout_s)
        if self._is_done():
            await asyncio.to_thread(account.keep, self._settings.data, self.folder.name, self._ledger.tracker)
            await asyncio.to_thread(drop_spool, self.folder)

    async def _finish(self, posting: asyncio.Task[None] | None, timeout_s: float) -> None:
        if self._posting:
            self._posting.stop()
        if self._publishing:
            await self._publishing.finish(timeout_s)
        if posting is not None:
            await asyncio.wait({posting}, timeout=timeout_s)
            posting.cancel()
            await asyncio.gather(posting, return_exceptions=True)
        self._reader.close()
        await self._ledger.close()

    def _is_done(self) -> bool:
        busy = self._publishing is not None and self._publishing.busy
        return self._ended and not busy and self._ledger.tracker.finished

    async def _turn(self) -> bool:
        """Whether anything moved."""
        moved = self._publishing is not None and await self._publishing.again()
        if not self._waiting and self._ledger.tracker.ready:
            await self._build({})
        elif not self._waiting:
            moved = await self._read() or moved
        if self._waiting:
            moved = await self._decide() or moved
        await self._clean()
        return moved

    # Reading

    async def _read(self) -> bool:
        self._reader.sealed = self.claim is not None
        try:
            frames = await asyncio.to_thread(self._reader.read, _READ_FRAMES_MAX, _READ_BYTES_MAX)
        except SpoolDamaged as error:
            metrics.DISK_ERRORS.inc()
            log.warning("spool %s cannot be read: %s", self.folder.name, error)
            await asyncio.sleep(_RETRY_S)
            return False
        metrics.CORRUPT.inc(self._reader.corrupt_bytes - self._corrupt_bytes)
        self._corrupt_bytes = self._reader.corrupt_bytes
        if frames:
            await self._take_in(frames)
        elif self._reader.sealed and not self._ended:
            self._ledger.tracker.sealed()
            await self._find_lost()
            await self._build({})
            self._ended = True
            return True
        return bool(frames)

    async def _take_in(self, frames: list[Frame]) -> None:
        tracker = self._ledger.tracker
        new = [frame for frame in frames if tracker.is_new(frame)]
        lost: list[Entry] = []
        for frame in frames:
            if frame.type == GAP:
                lost += self._see_gap(frame)
            else:
                tracker.see(frame)
        metrics.ADMITTED.inc(sum(frame.type == ADMITTED for frame in new))
        await self._ledger.write([tracker.passed(self._reader.position), *lost])
        await self._announce([frame for frame in new if frame.type == STARTED])
        await self._build({frame.sequence: frame for frame in frames if frame.type == COMPLETED})
        if not self._caught_up and self._reader.position >= tracker.mark:
            await self._find_lost()

    def _see_gap(self, frame: Frame) -> list[Entry]:
        tracker = self._ledger.tracker
        try:
            gap = tracker.see_gap(frame)
        except (ValueError, TypeError, KeyError):
            log.warning("spool %s: a gap's frame cannot be read", self.folder.name)
            return []
        if tracker.is_new(frame):
            metrics.COMPLETED.inc(gap.count)
            metrics.DROPPED.labels(gap.reason if gap.reason in REASONS else "other").inc(gap.count)
            log.error("spool %s: %d records were dropped by the worker (%s)", self.folder.name, gap.count, gap.reason)
        return [gap.entry]

    async def _announce(self, frames: list[Frame]) -> None:
        """`started` messages, of calls that have not ended meanwhile."""
        if self._publishing is None or not frames:
            return
        calls = self._ledger.tracker.calls
        running = [frame for frame in frames if frame.sequence in calls and calls[frame.sequence].place is None]
        metrics.STARTED.labels("superseded").inc(len(frames) - len(running))
        if running:
            self._publishing.start_started(await asyncio.to_thread(self._records.started, running))

    async def _build(self, completed: dict[int, Frame]) -> None:
        """Messages of the calls that are ready, as many as memory allows; those whose frame is no record are dropped."""
        calls = list(self._ledger.tracker.ready.values())
        wanted = [Wanted.of(call, 1) for call in calls]
        built = await asyncio.to_thread(self._records.some, wanted, completed, _BUILD_BYTES_MAX)
        for call, message in zip(calls, built, strict=False):
            if message is not None:
                call.recorded_at = message.recorded_at
                self._waiting.append((call, message))
        if unreadable := [call for call, message in zip(calls, built, strict=False) if message is None]:
            await self._drop(unreadable, "unreadable")

    async def _drop(self, calls: list[Call], reason: str) -> None:
        metrics.COMPLETED.inc(len(calls))
        metrics.DROPPED.labels(reason).inc(len(calls))
        log.error("spool %s: %d records are lost: %s", self.folder.name, len(calls), reason)
        await self._ledger.write(self._ledger.tracker.drop(calls, reason))

    async def _find_lost(self) -> None:
        """Decisions in the journal whose frames the disk has lost."""
        self._caught_up = True
        tracker = self._ledger.tracker
        lost = tracker.lost()
        for call in lost:
            call.final = True
        metrics.PLACEHOLDERS.inc(sum(call.path is Way.HTTP for call in lost))
        if to_kafka := [call for call in lost if call.path is Way.KAFKA]:
            metrics.DROPPED.labels("unreadable").inc(len(to_kafka))
            log.error("spool %s: %d records in doubt are gone from the disk", self.folder.name, len(to_kafka))
            await self._ledger.write(tracker.drop(to_kafka, "unreadable"))

    # Deciding

    async def _decide(self) -> bool:
        """Chooses ways, writes them down, and only then hands the records over."""
        choices = self._choose()
        to_kafka = [pair for pair in self._waiting if choices.get(pair[0].sequence) is Choice.KAFKA]
        to_http = [pair for pair in self._waiting if choices.get(pair[0].sequence) is Choice.HTTP]
        too_large = [pair for pair in self._waiting if choices.get(pair[0].sequence) is Choice.SHRINK]
        self._waiting = [pair for pair in self._waiting if choices.get(pair[0].sequence) is Choice.WAIT]
        if too_large:
            await self._shrink(too_large)
        if to_kafka or to_http:
            await self._hand_over(to_kafka, to_http)
        return bool(to_kafka or to_http or too_large)

    def _choose(self) -> dict[int, Choice]:
        publishing, posting = self._publishing, self._posting
        ways = Ways(
            kafka=publishing is not None,
            kafka_slots=publishing.slots if publishing else 0,
            kafka_deciding=publishing.deciding if publishing else False,
            kafka_record_bytes_max=self._settings.kafka_record_bytes_max,
            intake=posting is not None,
            intake_slots=posting.slots if posting else 0,
        )
        return {call.sequence: ways.choose(len(message.data)) for call, message in self._waiting}

    async def _hand_over(self, to_kafka: list[tuple[Call, Message]], to_http: list[tuple[Call, Message]]) -> None:
        tracker = self._ledger.tracker
        both = [*to_kafka, *to_http]
        partitions = self._publishing.partitions if self._publishing else 0
        entries = [tracker.to_kafka(call, partition_of(message.request_id, partitions)) for call, message in to_kafka]
        entries += [tracker.to_http(call, message.request_id) for call, message in to_http]
        metrics.COMPLETED.inc(len(both))
        metrics.INTERRUPTED.inc(sum(call.place is None for call, _ in both))
        metrics.REDACTIONS.inc(sum(message.redactions for _, message in both))
        await self._ledger.write(entries, frames=frozenset(segment for call, _ in to_http for segment in call.segments))
        for call, message in both:
            call.written = True
            if self._posting and call.path is Way.HTTP:
                self._posting.offer(call, message)
        if self._publishing and to_kafka:
            self._publishing.start(to_kafka)

    async def _shrink(self, pairs: list[tuple[Call, Message]]) -> None:
        """Once; a record whose facts alone are too large is dropped, and whole in the poison folder."""
        hopeless = [call for call, _ in pairs if call.sequence in self._shrunk]
        self._shrunk = {call.sequence for call, _ in pairs}
        if hopeless:
            await self._drop(hopeless, "too_large")
        for call, message in pairs:
            if call not in hopeless:
                shrunk = await asyncio.to_thread(self._poison.shrink, message, self.folder.name, call.sequence, "too_large")
                self._waiting.append((call, shrunk))

    # Cleaning

    async def _clean(self) -> None:
        """Takes away segments of which everything is settled."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._clean_at_s:
            return
        self._clean_at_s = now_s + _CLEAN_S
        tracker, reading = self._ledger.tracker, self._reader.position[0]
        existing = [segment for segment in await asyncio.to_thread(segments, self.folder) if segment < reading]
        if carried := [entry for segment in existing for entry in tracker.carry(segment)]:
            await self._ledger.write(carried)
        removable = tracker.removable(existing, reading)
        if removable and await self._ledger.sync():
            for segment in removable:
                await asyncio.to_thread(drop_segment, self.folder, segment)
                tracker.removed(segment)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
