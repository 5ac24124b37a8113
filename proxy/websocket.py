"""Reads the frames of a WebSocket beside their stream (RFC 6455 section 5, RFC 7692). Sans I/O: bytes in, messages out.

Any split of the bytes gives the same. Nothing here is sent on: what cannot be read ends the reading, not the stream.
"""

import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import Literal, NamedTuple

# A control frame's payload, as the RFC has it; and what a message may hold, its compression undone.
_CONTROL_BYTES_MAX = 125
MESSAGE_BYTES_MAX = 64 << 20

_DEFLATE_END = b"\0\0\xff\xff"  # which senders leave out (RFC 7692 section 7.2.1)


class NotWebSocket(Exception):
    """The bytes are not frames that can be read; the text says why."""


class Opcode(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


_OPCODES = {int(opcode): opcode for opcode in Opcode}
# First bytes of a frame: a Close, or what no frame begins with.
_NO_MORE = frozenset(first for first in range(256) if first & 0x30 or _OPCODES.get(first & 0x0F, Opcode.CLOSE) is Opcode.CLOSE)


class Part(NamedTuple):
    """A part of one frame: its payload is `data[start:stop]` of what was fed. `at`: payload bytes of the frame before it."""

    opcode: Opcode
    fin: bool
    compressed: bool
    mask: bytes  # empty: not masked
    at: int
    start: int
    stop: int
    last: bool  # of its frame


class Frames:
    """Where each frame's payload lies, on one side. Copies nothing but an unfinished frame head."""

    __slots__ = ("_at", "_frame", "_held", "_left")

    def __init__(self) -> None:
        self._held = b""
        self._frame: tuple[Opcode, bool, bool, bytes] | None = None
        self._at = self._left = 0

    def feed(self, data: bytes) -> Iterator[Part]:
        """Raises NotWebSocket; what came before it was given out."""
        place, size = 0, len(data)
        while True:
            if self._frame is None and (place := self._head(data, place)) < 0:
                return
            assert self._frame is not None
            stop = min(place + self._left, size)
            at, last = self._at, stop - place == self._left
            if stop == place and not last:
                return
            part = Part(*self._frame, at, place, stop, last)
            self._at, self._left = at + stop - place, self._left - (stop - place)
            self._frame = None if last else self._frame
            place = stop
            yield part

    def _head(self, data: bytes, place: int) -> int:
        """Where the payload begins; -1 while the head is not all there."""
        held = len(self._held)
        head = self._held + data[place : place + 14 - held]
        size = _head_size(head)
        if len(head) < size:
            self._held = head
            return -1
        self._held = b""
        self._frame, self._left = _frame(head[:size])
        self._at = 0
        return place + size - held


def _head_size(head: bytes) -> int:
    if len(head) < 2:
        return 2
    length, mask_bytes = head[1] & 0x7F, 4 if head[1] & 0x80 else 0
    return 2 + mask_bytes + (2 if length == 126 else 8 if length == 127 else 0)


def _frame(head: bytes) -> tuple[tuple[Opcode, bool, bool, bytes], int]:
    """Opcode, FIN, RSV1 and mask; then the payload's length."""
    fin, opcode, length = head[0] & 0x80 != 0, _OPCODES.get(head[0] & 0x0F), head[1] & 0x7F
    mask = head[-4:] if head[1] & 0x80 else b""
    if opcode is None or head[0] & 0x30:
        raise NotWebSocket("a frame has a reserved opcode or bit")
    if opcode >= Opcode.CLOSE and (not fin or head[0] & 0x40 or length > _CONTROL_BYTES_MAX):
        raise NotWebSocket("a control frame is fragmented, compressed or too long")
    if length > _CONTROL_BYTES_MAX:
        length = int.from_bytes(head[2 : 4 if length == 126 else 10], "big")
    if length >> 63:
        raise NotWebSocket("a frame's length has its first bit set")
    return (opcode, fin, head[0] & 0x40 != 0, mask), length


class Follower:
    """Whether one side has said Close. Never raises: of bytes that are no frames it is taken as said.

    It is in the worker, so it looks at nothing but how long each frame is.
    """

    __slots__ = ("_held", "_skip", "closed")

    def __init__(self) -> None:
        self.closed = False
        self._held = b""  # an unfinished head
        self._skip = 0  # of a payload, in what comes next

    def feed(self, data: bytes) -> None:
        if self.closed:
            return
        data = self._held + data if self._held else data
        place, size = self._skip, len(data)
        while size - place >= 2:
            first, second = data[place], data[place + 1]
            if first in _NO_MORE:
                self.closed = True
                return
            length = second & 0x7F
            if length > _CONTROL_BYTES_MAX:
                extended = 2 if length == 126 else 8
                if size - place < 2 + extended:
                    break
                length = extended + int.from_bytes(data[place + 2 : place + 2 + extended], "big")
            place += 2 + length + (4 if second & 0x80 else 0)
        self._held, self._skip = data[place:], max(place - size, 0)


class Message(NamedTuple):
    """`code` (None: none was given) only of a Close, whose payload is the reason."""

    kind: Literal["text", "binary", "close"]
    payload: bytes
    code: int | None = None


class Messages:
    """The messages of one side, whole and unmasked; pings and pongs are left out.

    `deflated`: `permessage-deflate` was agreed on, and its compression is undone.
    """

    def __init__(self, *, deflated: bool, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._frames = Frames()
        self._bytes_max = message_bytes_max
        self._inflater = _Inflater(message_bytes_max) if deflated else None
        self._control: list[bytes] = []  # of the control frame that is under way, between a message's frames
        self._pieces: list[bytes] = []
        self._size = 0
        self._opcode: Opcode | None = None  # of the message that is under way
        self._compressed = False

    def feed(self, data: bytes) -> Iterator[Message]:
        """Raises NotWebSocket; what came before it was given out."""
        for part in self._frames.feed(data):
            payload = _unmasked(data[part.start : part.stop], part.mask, part.at)
            if part.opcode >= Opcode.CLOSE:
                self._control.append(payload)
                if part.last:
                    whole, self._control = b"".join(self._control), []
                    if part.opcode is Opcode.CLOSE:
                        yield _close(whole)
            elif (message := self._take(part, payload)) is not None:
                yield message

    def _take(self, part: Part, payload: bytes) -> Message | None:
        if part.at == 0:
            self._begin(part)
        self._pieces.append(payload)
        self._size += len(payload)
        if self._size > self._bytes_max:
            raise NotWebSocket(f"a message is longer than {self._bytes_max} bytes")
        if not (part.last and part.fin):
            return None
        assert self._opcode is not None
        kind: Literal["text", "binary"] = "text" if self._opcode is Opcode.TEXT else "binary"
        whole = b"".join(self._pieces)
        self._pieces, self._size, self._opcode = [], 0, None
        return Message(kind, self._inflater.inflate(whole) if self._compressed and self._inflater is not None else whole)

    def _begin(self, part: Part) -> None:
        """A frame of data: the first of a message, or the next."""
        if part.opcode is not Opcode.CONTINUATION:
            if self._opcode is not None:
                raise NotWebSocket("a message begins within another")
            self._opcode, self._compressed = part.opcode, part.compressed
        elif self._opcode is None:
            raise NotWebSocket("a message continues that has not begun")
        if part.compressed and (self._inflater is None or part.opcode is Opcode.CONTINUATION):
            raise NotWebSocket("a frame is compressed, which was not agreed on")


class _Inflater:
    """The window lives on from message to message; a sender that begins anew each time does not look back into it."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._inner = zlib.decompressobj(-zlib.MAX_WBITS)

    def inflate(self, packed: bytes) -> bytes:
        """Raises NotWebSocket."""
        try:
            data = self._inner.decompress(packed + _DEFLATE_END, self._bytes_max)
        except zlib.error:
            raise NotWebSocket("a compressed message is damaged") from None
        if self._inner.unconsumed_tail:
            raise NotWebSocket(f"a compressed message is longer than {self._bytes_max} bytes")
        if self._inner.eof:  # a sender may end its deflate stream with a message
            self._inner = zlib.decompressobj(-zlib.MAX_WBITS)
        return data


def _close(payload: bytes) -> Message:
    if len(payload) == 1:
        raise NotWebSocket("a Close has half a status code")
    return Message("close", payload[2:], int.from_bytes(payload[:2], "big") if payload else None)


def _unmasked(payload: bytes, mask: bytes, at: int) -> bytes:
    """As one number: byte by byte it would take a hundred times as long."""
    if not mask or not payload:
        return payload
    turned = mask[at % 4 :] + mask[: at % 4]
    size = len(payload)
    key = (turned * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
