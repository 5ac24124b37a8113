"""Records: messages of one spool's calls, built from frames just read, or fetched from its segments again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from proxy.shipper import envelopes
from proxy.shipper.envelopes import Message
from proxy.shipper.poison import Poison
from proxy.shipper.tracker import Call, Place
from proxy.spool import COMPLETED, Frame, SpoolDamaged, SpoolReader
from proxy.spool.frames import HEAD_BYTES

# A frame this far behind the last one is sought, a nearer one read up to.
_STRIDE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """What it takes to build one message, taken from a Call so that another thread may use it. `shrink`: why, if at all."""

    sequence: int
    attempt: int
    place: Place | None
    facts: bytes | None
    request_id: str
    shrink: str | None = None

    @staticmethod
    def of(call: Call, attempt: int, shrink: str | None = None) -> "Wanted":
        return Wanted(call.sequence, attempt, call.place, call.facts, call.request_id, shrink)


class Records:
    """Blocking: called in a thread. A record that cannot be built is None."""

    def __init__(self, folder: Path, poison: Poison) -> None:
        self._folder = folder
        self._source = folder.name
        self._poison = poison

    def started(self, frames: Iterable[Frame]) -> list[Message]:
        return [message for frame in frames if (message := self._try_started(frame)) is not None]

    def build(self, wanted: Wanted, payload: bytes | memoryview | None) -> Message | None:
        """`payload` is that of the COMPLETED frame; without one the call was interrupted, or its record is lost."""
        try:
            message = self._build(wanted, payload)
        except SpoolDamaged:
            return None
        return self._poison.shrink(message, self._source, wanted.sequence, wanted.shrink) if wanted.shrink else message

    def some(self, wanted: list[Wanted], frames: Mapping[int, Frame], bytes_max: int) -> list[Message | None]:
        """The messages of the first of them: as many as stay within `bytes_max`, and at least one.

        `frames` by sequence are at hand; others are read from the spool again. A body may unpack to many times its size,
        so this bound holds the memory, not that of reading.
        """
        built: list[Message | None] = []
        reader = SpoolReader(self._folder, sealed=True)
        try:
            for w in wanted:
                built.append(self._one(w, frames.get(w.sequence), reader))
                bytes_max -= len(message.data) if (message := built[-1]) else 0
                if bytes_max <= 0:
                    break
        finally:
            reader.close()
        return built

    def _one(self, wanted: Wanted, frame: Frame | None, reader: SpoolReader) -> Message | None:
        if frame is None and wanted.place is not None:
            frame = _read_at(reader, wanted)
            wanted = wanted if frame else replace(wanted, place=None, facts=None)
        return self.build(wanted, frame.payload if frame else None)

    def _build(self, wanted: Wanted, payload: bytes | memoryview | None) -> Message:
        if payload is not None:
            return envelopes.completed(payload, self._source, wanted.sequence, wanted.attempt)
        if wanted.facts is not None:
            return envelopes.interrupted(wanted.facts, self._source, wanted.sequence, wanted.attempt)
        if not wanted.request_id:
            raise SpoolDamaged("nothing is known of this call")
        return envelopes.placeholder(wanted.request_id, self._source, wanted.sequence)

    def _try_started(self, frame: Frame) -> Message | None:
        try:
            return envelopes.started(frame.payload, self._source, frame.sequence)
        except SpoolDamaged:
            return None


def _read_at(reader: SpoolReader, wanted: Wanted) -> Frame | None:
    """The COMPLETED frame at the place; None when it can't be read there any more. The reader moves forward."""
    assert wanted.place is not None
    segment, offset = wanted.place
    at_segment, at = reader.position
    if at_segment != segment or not at <= offset <= at + _STRIDE_BYTES:
        reader.seek(segment, offset)
    while reader.position <= wanted.place:
        frames = reader.read(1, 1)
        if not frames:
            return None
        frame = frames[0]
        if (frame.segment, frame.end - len(frame.payload) - HEAD_BYTES) == wanted.place:
            return frame if frame.type == COMPLETED and frame.sequence == wanted.sequence else None
    return None
