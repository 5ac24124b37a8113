"""Notes: what a worker says of a call, as it goes through the ring. Pure.

    u32 length | marshal of the tuple

Both ends are the same interpreter, started one by the other, and the ring is nobody else's: that is what marshal needs.
"""

import marshal
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, NamedTuple

_LENGTH = struct.Struct("<I")
# No references between objects: finding them costs more than they save.
_FORM = 2
# Far above two captured bodies; it keeps a broken ring from being believed.
NOTE_BYTES_MAX = 512 << 20


class Kind(IntEnum):
    ADMITTED = 1
    STARTED = 2
    COMPLETED = 3
    OWED = 4  # records that the worker had to drop


class Side(NamedTuple):
    """A body as it went by. `sha256` (hexadecimal) only where the pieces are not all of it."""

    seen: int
    truncated: bool
    sha256: str | None
    pieces: list[bytes]


class Note(NamedTuple):
    """Times: `_ns` since the epoch, `_ms` since the call was received. The worker fills a plain tuple in this order."""

    kind: int
    sequence: int
    plan: bytes  # JSON of what the request's head says (proxy/plan.py)
    request_id: str
    received_ns: int
    recorded_ns: int
    trace: tuple[str | None, str | None, str | None, str | None] | None  # where it is not the plan's
    # What follows is not known yet when the call is admitted.
    upstream_started_ms: float | None = None
    proxy_ms: float | None = None
    headers_ms: float | None = None
    status: int | None = None
    head: bytes | None = None  # the answer's header lines as they came
    # What follows is known when it is over.
    end: str | None = None
    error: tuple[str, str, str] | None = None  # source, type, message
    duration_ms: float | None = None
    chunks: tuple[int, list[tuple[float, int]], list[float], float | None, float] | None = None  # see ChunkTimes.noted
    request: tuple[int, bool, str | None, list[bytes]] | None = None  # Side
    response: tuple[int, bool, str | None, list[bytes]] | None = None
    secrets: tuple[bytes, ...] = ()
    dropped: bool = False  # bodies left out, for want of room in the queue
    # Of a WebSocket, whose bodies are frames: when each piece of the request's and of the answer's side came.
    times_ms: tuple[list[float], list[float]] | None = None
    # Where it was to be asked for: whether the upstream was, bytes of the answer that the client did not see, why not.
    include_usage: tuple[bool, int, str | None] | None = None


class Owed(NamedTuple):
    kind: int
    ranges: list[tuple[int, int]]  # sequences, inclusive


def encode(note: tuple[Any, ...]) -> bytes:
    data = marshal.dumps(tuple(note), _FORM)
    return _LENGTH.pack(len(data)) + data


class Notes:
    """Cuts the ring's bytes into notes; any split of the bytes gives the same. `position` is behind the last note given."""

    def __init__(self, position: int = 0) -> None:
        self.position = position
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Any, ...]]:
        """Raises ValueError, EOFError or TypeError for what no worker wrote."""
        held = self._held
        held += data
        at = 0
        try:
            while len(held) - at >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(held, at)
                if length > NOTE_BYTES_MAX:
                    raise ValueError("a note longer than any worker writes")
                if len(held) - at - _LENGTH.size < length:
                    return
                at += _LENGTH.size + length
                self.position += _LENGTH.size + length
                yield marshal.loads(memoryview(held)[at - length : at])  # noqa: S302 - see the head of this module
        finally:
            del held[:at]
