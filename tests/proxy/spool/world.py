"""A spool's world: a worker with calls, the recorder that writes them, the shipper that reads them, and a disk decided by the test.

Writer, reader, lock, tracker and the way a recorder goes on after another are the real ones. What is kept here beside them is
what the oracle must know: what was handed over, each frame as it was encoded, and what each death took with it.
"""

from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from proxy.shipper.records import Wanted, _read_at
from proxy.shipper.tracker import Tracker
from proxy.spool import GAP, Frame, SpoolDamaged, SpoolReader, claim, drop_segment, segments, written_last
from proxy.spool import folder as folders
from proxy.spool import frames as frames_module
from proxy.spool import reader as reader_module
from proxy.spool import writer as writer_module
from proxy.spool.space import Gap, SpoolCounters
from proxy.spool.writer import Item, SpoolWriter
from tests.proxy.spool.disk import Died, Disk, Place

SPOOL = "a" * 32
LOOK_S = 2.0  # longer than a writer waits before it looks again
TURNS_MAX = 1000  # of a shipper that nothing disturbs


@dataclass(frozen=True)
class Encoded:
    """A frame as the writer made it."""

    type: int
    sequence: int
    payload: bytes
    data: bytes


class World:
    def __init__(self, patch: pytest.MonkeyPatch, *, bytes_max: int, segment_bytes: int) -> None:
        self.disk, self.now = Disk(), 100.0
        self.encoded: list[Encoded] = []
        self.items: list[Item] = []  # what the worker noted, in its order
        self.handed = self.settled = 0  # of these: given to the writer of now; taken out of the worker's memory
        self.queue_dropped: set[int] = set()
        self.unstated: set[int] = set()  # dropped records that a dead writer had not stated
        self.memory_lost: int | None = None  # items from here on went with the worker's memory
        self.deaths = 0
        self.rewritten: list[tuple[int, int]] = []  # frames that a recorder wrote though it could read them
        self._there: set[tuple[int, int]] = set()
        self._bounds = {"bytes_max": bytes_max, "segment_bytes": segment_bytes}
        self._take_over(patch)
        self.root = Place(self.disk, "spools")
        self._lock: folders.Claim | None = folders.create(self.root, SPOOL)  # type: ignore[arg-type]
        self.folder: Any = self.root / SPOOL
        self.writer: SpoolWriter | None = None
        self.start_recorder()
        self.shipper = Shipper(self)

    def _take_over(self, patch: pytest.MonkeyPatch) -> None:
        for module in (writer_module, reader_module, folders):
            patch.setattr(module, "os", self.disk)
        patch.setattr(folders, "fcntl", self.disk)
        patch.setattr(writer_module, "time", SimpleNamespace(monotonic=lambda: self.now))

        def encode(seed: int, kind: int, sequence: int, payload: tuple[bytes, ...]) -> list[bytes]:
            buffers = frames_module.encode(seed, kind, sequence, payload)
            self.encoded.append(Encoded(int(kind), sequence, b"".join(payload), b"".join(buffers)))
            if (int(kind), sequence) in self._there and kind != GAP:
                self.rewritten.append((int(kind), sequence))
            return buffers

        patch.setattr(writer_module, "encode", encode)

    # The worker

    def note(self, items: list[Item]) -> None:
        self.items += items

    def drop_in_queue(self, sequences: list[int]) -> None:
        """Their records were ready, and there was no room to hold them."""
        if self.writer is None or not sequences:
            return
        gap = Gap()
        for sequence in sequences:
            gap.add(sequence)
        self.queue_dropped |= set(sequences)
        self.writer.owe("queue", gap)

    # The recorder

    def start_recorder(self) -> bool:
        """It goes on where the last one was. False when it died of its disk."""
        assert self._lock is not None
        try:
            number, self._written = written_last(self.folder)
        except (SpoolDamaged, Died):
            return False
        self.handed = self.settled
        self._there = {(frame.type, frame.sequence) for frame in set(self.encoded) if self._is_there(frame)}
        held = folders.Claim(self.folder, self.disk.inherit(self._lock.descriptor))
        self.counters = SpoolCounters()
        self.writer = SpoolWriter(self.root, SPOOL, counters=self.counters, claim=held, number=number, **self._bounds)  # type: ignore[arg-type]
        return True

    def write(self, count: int, *, settle: bool) -> None:
        """The next items; `settle`: their room in the worker's memory is given back."""
        if self.writer is None:
            return
        batch = self.items[self.handed : self.handed + count]
        try:
            self.writer.append([item for item in batch if (int(item[0]), item[1]) not in self._written])
        except Died:
            self.kill_recorder()
            return
        self.handed += len(batch)
        if settle:
            self.settled = self.handed

    def look(self) -> None:
        self.now += LOOK_S
        if self.writer is not None:
            try:
                self.writer.look()
            except Died:
                self.kill_recorder()

    def kill_recorder(self) -> None:
        """What it had taken and not written is noted still, unless it was settled."""
        assert self.writer is not None
        if self.writer._claim is not None:
            self.writer._claim.release()
        owed = [gap.ranges for gap in self.writer._gaps.values()]
        owed += [orjson.loads(frame.payload)["sequences"] for frame in self.encoded if frame.type == GAP and not self.places(frame)]
        self.unstated |= {number for ranges in owed for number in in_ranges(ranges)}
        self.writer = None
        self.deaths += 1

    def kill_all(self) -> None:
        """Worker and recorder, and with them what was only in their memory."""
        self.memory_lost = self.settled
        if self.writer is not None:
            self.handed = self.settled
            self.kill_recorder()
        self.release()

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # What the disk was given, told by bytes alone

    def places(self, frame: Encoded) -> list[tuple[Any, int, int]]:
        """File, start and end of each whole copy that was ever written."""
        found = []
        for file in self.disk.ever:
            start = file.written.find(frame.data)
            while start >= 0:
                found.append((file, start, start + len(frame.data)))
                start = file.written.find(frame.data, start + 1)
        return found

    def on_disk_ever(self) -> list[Encoded]:
        return [frame for frame in dict.fromkeys(self.encoded) if self.places(frame)]

    def _is_there(self, frame: Encoded) -> bool:
        """Undamaged, in a segment that is there still."""
        return any(file.links and not file.is_damaged(start, end) for file, start, end in self.places(frame))


class Shipper:
    """The tail of the spool without its network: what is ready is delivered when the test says so."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.journal: list[Any] = []
        self.delivered: Counter[int] = Counter()
        self.payloads: dict[int, bytes] = {}  # of delivered records
        self.interrupted: dict[int, bytes] = {}  # their first facts
        self.unreadable: set[int] = set()
        self.gap_counts = 0
        self.stated: Counter[int] = Counter()  # sequences, by the gaps
        self.seen: list[tuple[int, int, bytes]] = []  # each frame once
        self.corrupt_bytes = 0
        self._claim: Any = None
        self.restart()

    def restart(self) -> None:
        """SIGKILL, and another: of the old one only the journal is left."""
        self.tracker = Tracker()
        self.tracker.restore(orjson.loads(orjson.dumps(self.journal)))
        self._reader = SpoolReader(self.world.folder, sealed=self._claim is not None)

    def read(self, frames_max: int) -> bool:
        """As the tail does. Whether there was anything."""
        try:
            frames = self._reader.read(frames_max, 1 << 20)
        except SpoolDamaged:
            return True
        except Died:
            self.restart()
            return True
        for frame in frames:
            self._take_in(frame)
        if frames:
            self.journal.append(self.tracker.passed(self._reader.position))
        return bool(frames)

    def _take_in(self, frame: Frame) -> None:
        new = self.tracker.is_new(frame)
        if new:
            self.seen.append((int(frame.type), frame.sequence, bytes(frame.payload)))
        if frame.type != GAP:
            self.tracker.see(frame)
            return
        try:
            gap = self.tracker.see_gap(frame)
        except (ValueError, TypeError, KeyError):
            return
        if new:
            self.gap_counts += gap.count
            self.stated.update(sequences_of(bytes(frame.payload)))

    def deliver(self, count: int) -> bool:
        calls = list(self.tracker.ready.values())[:count]
        reader = SpoolReader(self.world.folder, sealed=True)
        for call in calls:
            try:
                frame = None if call.place is None else _read_at(reader, Wanted.of(call, 1))
            except SpoolDamaged:
                return True  # the disk refuses: later
            except Died:
                self.restart()
                return True
            self.journal.append(self.tracker.to_kafka(call, 0))
            if frame is not None:
                self.delivered[call.sequence] += 1
                self.payloads[call.sequence] = bytes(frame.payload)
            elif call.place is None:
                assert call.facts is not None
                self.delivered[call.sequence] += 1
                self.interrupted[call.sequence] = call.facts
            else:
                self.unreadable.add(call.sequence)
            self.journal.append(self.tracker.settle([call]))
        reader.close()
        return bool(calls)

    @property
    def position(self) -> tuple[int, int]:
        return self._reader.position

    def clean(self) -> None:
        reading = self.position[0]
        existing = [segment for segment in segments(self.world.folder) if segment < reading]
        self.journal += [entry for segment in existing for entry in self.tracker.carry(segment)]
        for segment in self.tracker.removable(existing, reading):
            drop_segment(self.world.folder, segment)
            self.tracker.removed(segment)

    def adopt(self) -> bool:
        """False while somebody living holds the spool."""
        try:
            self._claim = self._claim or claim(self.world.folder)
        except OSError:
            return False
        except Died:
            self.restart()
            return False
        self._reader.sealed = self._claim is not None
        return self._claim is not None

    def work(self) -> None:
        """Until there is nothing to do."""
        for _ in range(TURNS_MAX):
            if not (self.read(5) | self.deliver(5)):
                return
            self.clean()
        raise AssertionError("a shipper that nothing disturbs never comes to its end")

    def finish(self) -> None:
        """The worker is dead: everything, and what is open then is interrupted."""
        assert self.adopt()
        self.work()
        self.tracker.sealed()
        self.work()
        self.corrupt_bytes = self._reader.corrupt_bytes


def sequences_of(payload: bytes) -> list[int]:
    """Of a gap."""
    return in_ranges(orjson.loads(payload)["sequences"])


def in_ranges(ranges: list[tuple[int, int]]) -> list[int]:
    return [number for first, last in ranges for number in range(first, last + 1)]
