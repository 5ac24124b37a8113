"""SpoolWriter: appends frames to the segments of one spool. Synchronous; owned by one thread. It never raises for
a disk that is full, broken or gone: what it can't keep is dropped by the ladder of `space`, counted, and stated
in a GAP frame as soon as there is room again."""

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from proxy.spool import folder as folders
from proxy.spool.frames import HEAD_BYTES, PAYLOAD_BYTES_MAX, FrameType, completed_payload, encode, seed_of
from proxy.spool.space import Gap, Rung, SpoolCounters, rung, sides_of, without_bodies

# Folder, room on disk and a refusing disk are looked at again after this time, not before.
_LOOK_S = 1.0
# Full means full until this part of the room is free again; else every mark that just fits would state a gap.
_RESUME_PART = 64
# Lengths of the three parts, and `policy.dropped` growing by two names.
_RECORD_BYTES = HEAD_BYTES + 12 + 32
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

# type, sequence, facts, request body, response body, sides that were dropped on the way here
Item = tuple[int, int, bytes, bytes, bytes, tuple[str, ...]]


class _Outgoing(NamedTuple):
    type: int
    sequence: int
    buffers: list[bytes]
    size: int
    bare: bool = False
    reason: str = ""  # of a GAP
    gap: Gap | None = None


class SpoolWriter:
    """`root` is the folder of all spools. Segments hold `segment_bytes` (or one larger frame), all of them `bytes_max`.

    `claim`: the spool's lock, where it is held already. `number`: of the next frame, where there are some.
    """

    def __init__(
        self,
        root: Path,
        spool_id: str,
        *,
        bytes_max: int,
        segment_bytes: int,
        counters: SpoolCounters | None = None,
        claim: folders.Claim | None = None,
        number: int = 0,
    ) -> None:
        self.folder = root / spool_id
        self.counters = counters or SpoolCounters()
        self._root, self._spool_id, self._seed = root, spool_id, seed_of(spool_id)
        self._bytes_max, self._segment_bytes = bytes_max, segment_bytes
        self._claim = claim
        self._descriptor = -1
        self._segment_size = 0
        self._number = number  # of the next frame in this spool
        self._used, self._capacity = 0, bytes_max
        self._look_at = 0.0
        self._refusing = ""  # the reason, while nothing is taken
        self._failed = False  # the last write did, with not one frame on disk
        self._gaps: dict[str, Gap] = {}

    def look(self) -> None:
        """At most once a second: take the lock, measure the room, go on after a failure, state what was dropped."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_S
        try:
            self._hold()
            self._measure()
        except OSError as error:
            self._fail(error)
            return
        if self._refusing == "disk_error" or self._used <= self._capacity - self._capacity // _RESUME_PART:
            self._refusing = ""
        if self._gaps and not self._refusing:
            self._write(self._gap_frames())

    def append(self, items: Iterable[Item]) -> None:
        """Writes or drops each; when it returns, what was written is the kernel's and survives the death of the process."""
        self.look()
        self._write([frame for item in items if (frame := self._frame(*item)) is not None])

    def owe(self, reason: str, gap: Gap) -> None:
        """These records were dropped before they came here: to be stated with the next GAP frame."""
        self._gaps.setdefault(reason, Gap()).merge(gap)

    def close(self) -> None:
        """States the gaps if it can, makes the last segment durable, lets go of the lock."""
        self._look_at = 0.0
        self.look()
        self._seal_segment()
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    # What becomes of an item

    def _frame(self, kind: int, sequence: int, facts: bytes, request: bytes, response: bytes, dropped: tuple[str, ...]) -> _Outgoing | None:
        bare_size = _RECORD_BYTES + len(facts)
        size = bare_size + len(request) + len(response)
        choice = self._choose(size, bare_size)
        if choice is Rung.DROP:
            self._refusing = self._refusing or "space"
            self._drop(kind, sequence, self._refusing)
            return None
        if choice is Rung.BARE:
            dropped, request, response = sides_of(request, response), b"", b""
        if dropped:
            facts = without_bodies(facts, dropped)
        payload = completed_payload(facts, request, response) if kind == FrameType.COMPLETED else (facts,)
        return self._outgoing(kind, sequence, payload)._replace(bare=choice is Rung.BARE)

    def _choose(self, size: int, bare_size: int) -> Rung:
        if self._refusing or bare_size > PAYLOAD_BYTES_MAX:
            return Rung.DROP
        choice = rung(self._used, self._capacity, size, bare_size)
        return Rung.BARE if choice is Rung.KEEP and size > PAYLOAD_BYTES_MAX else choice

    def _outgoing(self, kind: int, sequence: int, payload: tuple[bytes, ...], reason: str = "", gap: Gap | None = None) -> _Outgoing:
        buffers = encode(self._seed, kind, sequence, payload)
        size = sum(map(len, buffers))
        self._used += size
        return _Outgoing(kind, sequence, buffers, size, False, reason, gap)

    def _gap_frames(self) -> list[_Outgoing]:
        owed, self._gaps = self._gaps, {}
        return [self._outgoing(FrameType.GAP, gap.span[0], (gap.payload(reason),), reason, gap) for reason, gap in owed.items()]

    def _drop(self, kind: int, sequence: int, reason: str) -> None:
        if kind != FrameType.COMPLETED:
            self.counters.dropped_marks[reason] += 1
            return
        self.counters.dropped_records[reason] += 1
        self._gaps.setdefault(reason, Gap()).add(sequence)

    def _drop_outgoing(self, frames: Sequence[_Outgoing]) -> None:
        for frame in frames:
            if frame.gap is not None:
                self.owe(frame.reason, frame.gap)
            else:
                self._drop(frame.type, frame.sequence, self._refusing)

    # Bytes to disk

    def _write(self, frames: list[_Outgoing]) -> None:
        while frames:
            if self._refusing:
                self._drop_outgoing(frames)
                return
            try:
                done = self._write_some(frames)
            except OSError as error:
                done = 0
                self._fail(error)
            frames = frames[done:]

    def _write_some(self, frames: list[_Outgoing]) -> int:
        """One writev of what fits into the segment; how many frames are whole on disk. Raises OSError when it can't open one."""
        if self._segment_size and self._segment_size + frames[0].size > self._segment_bytes:
            self._seal_segment()
        if self._descriptor < 0:
            self._open_segment()
        group, size = [frames[0]], self._segment_size + frames[0].size
        for frame in frames[1:]:
            size += frame.size
            if size > self._segment_bytes:
                break
            group.append(frame)
        written, error = _write_all(self._descriptor, [buffer for frame in group for buffer in frame.buffers])
        done = self._settle(group, written)
        self._failed = self._failed and not done
        if error is not None:
            self._fail(error)
        return done

    def _settle(self, group: list[_Outgoing], written: int) -> int:
        counters = self.counters
        for done, frame in enumerate(group):
            if written < frame.size:
                return done
            written -= frame.size
            self._segment_size += frame.size
            self._number += 1
            counters.written_frames += 1
            counters.written_bytes += frame.size
            counters.written_records += frame.type == FrameType.COMPLETED
            counters.dropped_bodies["space"] += frame.bare
            counters.gaps += frame.type == FrameType.GAP
        return len(group)

    def _fail(self, error: OSError) -> None:
        """A full disk: cut off the torn frame, take nothing for a while. Any other error: a new segment, once; then the same."""
        self.counters.disk_errors += 1
        full = error.errno in _FULL
        if not self._cut() or not full:
            self._abandon_segment()
        if full or self._failed or self._claim is None:
            self._refusing = "space" if full else "disk_error"
        self._failed = True

    # Segments

    def _open_segment(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(folders.segment_path(self.folder, self._number), flags, 0o600)
        self._segment_size = 0

    def _cut(self) -> bool:
        """Takes the torn frame off the segment's end. False when the disk refuses."""
        if self._descriptor < 0:
            return False
        try:
            os.ftruncate(self._descriptor, self._segment_size)
        except OSError:
            return False
        return True

    def _seal_segment(self) -> None:
        if self._descriptor < 0:
            return
        try:
            # Never again for this file if it fails: the kernel may have forgotten the pages it could not write.
            os.fdatasync(self._descriptor)
            folders.sync(self.folder)
        except OSError:
            self.counters.disk_errors += 1
        self._close_segment()

    def _abandon_segment(self) -> None:
        """The frame that failed keeps its number, so the next segment gets a name of its own."""
        self._close_segment()
        self._number += 1

    def _close_segment(self) -> None:
        descriptor, self._descriptor, self._segment_size = self._descriptor, -1, 0
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    # The folder

    def _hold(self) -> None:
        """The folder is there and its lock ours, made anew if somebody took it away. Raises OSError."""
        if self._descriptor >= 0 and os.fstat(self._descriptor).st_nlink == 0:
            self.counters.disk_errors += 1
            self._abandon_segment()
        if self._claim is not None and not self._claim.stands():
            self._claim.release()
            self._claim = None
        if self._claim is None:
            self._claim = folders.claim(self.folder) if self.folder.exists() else folders.create(self._root, self._spool_id)
            if self._claim is None:
                raise BlockingIOError(errno.EAGAIN, "somebody else holds this spool")

    def _measure(self) -> None:
        """Room is what the setting allows and what the disk still has."""
        with os.scandir(self.folder) as entries:
            self._used = sum(entry.stat().st_size for entry in entries if folders.segment_of(entry.name) is not None)
        disk = os.statvfs(self.folder)
        self._capacity = min(self._bytes_max, self._used + disk.f_bavail * disk.f_frsize)
        self.counters.disk_bytes = self._used


def _write_all(descriptor: int, buffers: list[bytes]) -> tuple[int, OSError | None]:
    """Bytes that went to the file, and what stopped the rest."""
    written = 0
    try:
        written = os.writev(descriptor, buffers)
        total = sum(map(len, buffers))
        if written < total:
            rest = memoryview(b"".join(buffers))
            while written < total:
                written += os.write(descriptor, rest[written:])
    except OSError as error:
        return written, error
    return written, None
