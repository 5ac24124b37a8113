"""Walk: every frame of a spool in order, and between them the bytes that are none. For people who look into a spool."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proxy.spool import folder as folders
from proxy.spool.frames import HEAD_BYTES, Frame
from proxy.spool.reader import SpoolReader

_FRAMES_MAX, _BYTES_MAX = 1000, 8 << 20


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes [start, end) of a segment that hold no frame."""

    segment: int
    start: int
    end: int


def start_of(frame: Frame) -> int:
    """The byte offset at which the frame begins."""
    return frame.end - len(frame.payload) - HEAD_BYTES


def walk(folder: Path, *, sealed: bool, spool_id: str | None = None) -> Iterator[Frame | Damage]:
    """Not `sealed`: bytes at the very end may be a frame that is being written, and are not damage. Raises SpoolDamaged (disk)."""
    reader = SpoolReader(folder, sealed=sealed, spool_id=spool_id)
    at: tuple[int, int] | None = None
    try:
        while frames := reader.read(_FRAMES_MAX, _BYTES_MAX):
            for frame in frames:
                yield from _between(folder, at, frame.segment, start_of(frame))
                yield frame
                at = frame.segment, frame.end
        yield from _rest(folder, at, sealed=sealed)
    finally:
        reader.close()


def _between(folder: Path, at: tuple[int, int] | None, segment: int, start: int) -> Iterator[Damage]:
    """What lies between the end of one frame and the start of the next, perhaps segments later."""
    known = [number for number in folders.segments(folder) if (at is None or number >= at[0]) and number < segment]
    for number in known:
        yield from _bytes(number, at[1] if at is not None and at[0] == number else 0, _size(folder, number))
    yield from _bytes(segment, at[1] if at is not None and at[0] == segment else 0, start)


def _rest(folder: Path, at: tuple[int, int] | None, *, sealed: bool) -> Iterator[Damage]:
    found = [number for number in folders.segments(folder) if at is None or number >= at[0]]
    for number in found if sealed else found[:-1]:
        yield from _bytes(number, at[1] if at is not None and at[0] == number else 0, _size(folder, number))


def _bytes(segment: int, start: int, end: int) -> Iterator[Damage]:
    if start < end:
        yield Damage(segment, start, end)


def _size(folder: Path, segment: int) -> int:
    with contextlib.suppress(OSError):  # a segment that was settled meanwhile
        return folders.segment_path(folder, segment).stat().st_size
    return 0
