"""A JSON array that arrives in pieces, as Gemini streams without `alt=sse`: bytes in, elements out, no I/O."""

import re
from dataclasses import dataclass

ELEMENT_BYTES_MAX = 16 << 20
STEPS_MAX = 4_000_000  # quotes, brackets, commas and backslashes

# The only bytes that change the state; one character class, so the scan is linear.
_OUTSIDE = re.compile(rb'["\[\]{},]')
_INSIDE = re.compile(rb'["\\]')


class ArrayError(ValueError):
    """Not an array, an element larger than its bound, or more of everything than a real one. The splitter must not be fed again."""


@dataclass(frozen=True, slots=True)
class Element:
    data: bytes  # JSON text of one element, as it came
    end: int  # bytes of the stream up to the element's end


class Splitter:
    """Elements of one top-level array. Only the nesting is checked; each element's JSON is the reader's to parse."""

    def __init__(self, *, element_bytes_max: int = ELEMENT_BYTES_MAX) -> None:
        self._element_bytes_max = element_bytes_max
        self._buffer = b""
        self._scanned = 0  # bytes of the buffer whose effect on the state is known
        self._start = 0  # where the element under way begins in the buffer
        self._position = 0  # stream offset of the buffer's first byte
        self._depth = 0
        self._quoted = False
        self._closed = False
        self._steps_left = STEPS_MAX

    def feed(self, data: bytes) -> list[Element]:
        """Raises ArrayError."""
        self._buffer += data
        if self._depth == 0 and not self._closed:
            self._open()
        found: list[Element] = []
        while self._depth > 0 and (at := self._next()) is not None:
            self._step(at, found)
        if self._closed and self._buffer[self._scanned :].strip():
            raise ArrayError("bytes after the end of the array")
        self._forget()
        return found

    def _open(self) -> None:
        plain = self._buffer.lstrip()
        if plain and not plain.startswith(b"["):
            raise ArrayError("not an array")
        if plain:
            self._depth = 1
            self._scanned = self._start = len(self._buffer) - len(plain) + 1

    def _next(self) -> int | None:
        """Where the next byte stands that changes the state."""
        if self._scanned > len(self._buffer):  # behind an escape whose second byte has not come
            return None
        match = (_INSIDE if self._quoted else _OUTSIDE).search(self._buffer, self._scanned)
        if match is None:
            self._scanned = len(self._buffer)
            return None
        return match.start()

    def _step(self, at: int, found: list[Element]) -> None:
        self._steps_left -= 1
        if self._steps_left < 0:
            raise ArrayError("more brackets and quotes than an array may have")
        byte = self._buffer[at]
        self._scanned = at + 1
        if byte == 0x5C:  # \ : the byte behind it means nothing
            self._scanned = at + 2
        elif byte == 0x22:  # "
            self._quoted = not self._quoted
        elif byte in b"[{":
            self._depth += 1
        elif byte in b"]}":
            self._depth -= 1
            self._closed = self._depth == 0
            if self._depth <= 1:
                self._emit(at + self._depth, found)  # an element's own bracket belongs to it, the array's does not
        elif self._depth == 1:  # a comma between two elements
            self._emit(at, found)

    def _emit(self, at: int, found: list[Element]) -> None:
        data = self._buffer[self._start : at].strip()
        if len(data) > self._element_bytes_max:
            raise ArrayError(f"element larger than {self._element_bytes_max} bytes")
        if data:
            found.append(Element(data, self._position + at))
        self._start = at if self._buffer[at : at + 1] not in (b",", b"]") else at + 1

    def _forget(self) -> None:
        keep = min(self._start if self._depth or self._closed else 0, len(self._buffer))
        self._buffer = self._buffer[keep:]
        self._position += keep
        self._scanned -= keep
        self._start -= keep
        if len(self._buffer) > self._element_bytes_max:
            raise ArrayError(f"element larger than {self._element_bytes_max} bytes")
