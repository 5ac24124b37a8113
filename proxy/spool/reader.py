"""SpoolReader: follows the segments of one spool, dead or alive, and trusts no byte that the checksum does not cover."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from proxy.spool import folder as folders
from proxy.spool.frames import HEAD_BYTES, Frame, FrameType, Head, SpoolDamaged, candidates, checked_payload, head_at, seed_of

_WINDOW_BYTES = 1 << 20
# What a search for the next frame may spend on checksums, per segment: bodies can be made to look like heads.
_SEARCH_BYTES_MAX = 1 << 30
# In a living segment a bad frame is searched past only when this much stands behind it, then twice this, and so on.
_PROOF_BYTES_MIN = 64 << 10
_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})


class SpoolReader:
    """Reads from (`segment`, `offset`) on; a segment that is gone is passed over to the next one.

    Set `sealed` once the writer is known to be dead (its lock was claimed): then the spool's end is final, and a torn
    tail is cut. Until then bytes at the end that are no frame are one that is being written. `corrupt_bytes`
    counts what was skipped. `spool_id`: of a folder that was renamed. Errors of the disk are raised as SpoolDamaged; the
    position stays, so reading can be tried again.
    """

    def __init__(self, folder: Path, segment: int = 0, offset: int = 0, *, sealed: bool = False, spool_id: str | None = None) -> None:
        self.folder = folder
        self.sealed = sealed
        self.corrupt_bytes = 0
        self._seed = seed_of(spool_id or folder.name)
        self._segment, self._offset = segment, offset
        self._file: _SegmentFile | None = None
        self._proof_bytes = _PROOF_BYTES_MIN

    @property
    def position(self) -> tuple[int, int]:
        """Segment and byte offset of the next frame."""
        return self._segment, self._offset

    def seek(self, segment: int, offset: int = 0) -> None:
        self.close()
        self._segment = segment
        self._move(offset)

    def read(self, frames_max: int, bytes_max: int) -> list[Frame]:
        """The next frames, `bytes_max` in all (or one larger one); [] when nothing new is there."""
        frames: list[Frame] = []
        try:
            self._read_into(frames, frames_max, bytes_max)
        except OSError as error:
            self.close()
            if not frames:  # those that were read count; what is wrong behind them is met again
                raise SpoolDamaged(f"segment {self._segment}: {error.strerror}") from error
        return frames

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _read_into(self, frames: list[Frame], frames_max: int, bytes_max: int) -> None:
        room = bytes_max
        while len(frames) < frames_max and (frame := self._peek()) is not None:
            room -= frame.end - self._offset
            if frames and room < 0:
                break
            frames.append(frame)
            self._move(frame.end)

    def _peek(self) -> Frame | None:
        """The frame at the position, which moves over damage and to following segments on the way."""
        while True:
            file = self._file or self._open()
            if file is None:
                return None
            found = file.frame_at(self._offset)
            if found is not None:
                return found
            # List first, look again after: what a segment holds once a later one was seen is all it will ever hold.
            later = next((number for number in folders.segments(self.folder) if number > self._segment), None)
            size = file.size()
            if self._offset < size:
                if not self._pass_damage(file, size, final=self.sealed or later is not None):
                    return None
            elif later is None:
                return None
            else:
                self.seek(later)

    def _open(self) -> "_SegmentFile | None":
        """The segment of the position, or the first one after it."""
        for number in folders.segments(self.folder):
            if number < self._segment:
                continue
            file = _SegmentFile.open(self.folder, number, self._seed)
            if file is None:
                continue
            self._file = file
            self._offset = self._offset if number == self._segment else 0
            self._segment = number
            return self._file
        return None

    def _pass_damage(self, file: "_SegmentFile", size: int, *, final: bool) -> bool:
        """Moves behind bytes that are no frame. False while they may still become one."""
        target = file.behind(self._offset)
        if final or target is not None or size - self._offset >= self._proof_bytes:
            # The length may be the damage, and lead over valid frames to a later one: the nearest counts.
            target = file.search(self._offset + 1, size) or target
            self._proof_bytes = 2 * (size - self._offset)
        if target is None and not final:
            return False
        target = size if target is None else target
        if file.frame_at(self._offset, fresh=True) is not None:
            # It was being written while we looked; what proves it bad came after it, so now it is whole.
            return True
        self.corrupt_bytes += target - self._offset
        self._move(target)
        return True

    def _move(self, offset: int) -> None:
        self._offset = offset
        self._proof_bytes = _PROOF_BYTES_MIN


class _SegmentFile:
    """One open segment, read through a window."""

    def __init__(self, descriptor: int, number: int, seed: int) -> None:
        self._descriptor = descriptor
        self._number, self._seed = number, seed
        self._window, self._window_at = b"", 0

    @staticmethod
    def open(folder: Path, number: int, seed: int) -> "_SegmentFile | None":
        """None for what is gone, or has a segment's name but is no file."""
        try:
            descriptor = os.open(folders.segment_path(folder, number), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return _SegmentFile(descriptor, number, seed)
        os.close(descriptor)
        return None

    def close(self) -> None:
        os.close(self._descriptor)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def frame_at(self, offset: int, *, fresh: bool = False) -> Frame | None:
        """The valid frame that begins at `offset`; `fresh` looks at the file again."""
        if fresh:
            self._window = b""
        head = self._head(offset)
        if head is None:
            return None
        data, at = self._bytes(offset, head.frame_bytes)
        payload = checked_payload(self._seed, head, data, at)
        if payload is None:
            return None
        return Frame(FrameType(head.type), head.sequence, payload, self._number, offset + head.frame_bytes)

    def behind(self, offset: int) -> int | None:
        """Where the bad frame at `offset` says it ends, if a valid frame begins there."""
        head = self._head(offset)
        if head is None or self.frame_at(offset + head.frame_bytes) is None:
            return None
        return offset + head.frame_bytes

    def search(self, offset: int, size: int) -> int | None:
        """The first valid frame at or after `offset`."""
        budget = _SEARCH_BYTES_MAX
        for found in self._candidates(offset, size):
            head = self._head(found)
            if head is None or found + head.frame_bytes > size:
                continue
            budget -= head.frame_bytes
            if budget < 0:
                return None
            if self.frame_at(found) is not None:
                return found
        return None

    def _candidates(self, offset: int, size: int) -> Iterator[int]:
        while offset + HEAD_BYTES <= size:
            chunk = os.pread(self._descriptor, min(_WINDOW_BYTES, size - offset), offset)
            for found in candidates(chunk):
                yield offset + found
            # A head that lies across the chunk's end is found at the beginning of the next one.
            offset += max(len(chunk), HEAD_BYTES) - HEAD_BYTES + 1

    def _head(self, offset: int) -> Head | None:
        return head_at(*self._bytes(offset, HEAD_BYTES))

    def _bytes(self, offset: int, length: int) -> tuple[bytes, int]:
        """At least `length` bytes from `offset` if the file has them, and where in the buffer they begin."""
        at = offset - self._window_at
        if not 0 <= at <= at + length <= len(self._window):
            self._window = os.pread(self._descriptor, max(length, _WINDOW_BYTES), offset)
            self._window_at, at = offset, 0
        return self._window, at


# Frames that were written and not yet known to be lie in the last of these.
_LAST_SEGMENTS = 16
_FRAMES_READ, _BYTES_READ = 1024, 8 << 20


def written_last(folder: Path) -> tuple[int, set[tuple[int, int]]]:
    """Of a spool whose writer died: the number for the next frame, and type and sequence of the last frames on disk."""
    found = folders.segments(folder)[-_LAST_SEGMENTS:]
    if not found:
        return 0, set()
    reader = SpoolReader(folder, sealed=True)
    reader.seek(found[0], 0)
    written: set[tuple[int, int]] = set()
    number = found[-1] + 1
    while frames := reader.read(_FRAMES_READ, _BYTES_READ):
        written |= {(int(frame.type), frame.sequence) for frame in frames}
        number += sum(frame.segment == found[-1] for frame in frames)
    reader.close()
    return number, written
