"""Follows the chunked framing of a body that is relayed as it stands: where each chunk's payload lies, where
the message ends (RFC 9112 section 7.1). Sans I/O; any split of the bytes gives the same payload and end.

It never alters a byte and is strict: a size is plain hexadecimal, every line ends with CRLF.
"""

import re
from enum import Enum

from proxy.upstream.faults import Malformed

# A size line holds up to 16 digits and, rarely, extensions; a trailer block is a few hundred bytes.
SIZE_LINE_BYTES_MAX = 4096
TRAILER_BYTES_MAX = 64 << 10

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*")


class _Expect(Enum):
    SIZE = 1
    PAYLOAD = 2
    CRLF = 3  # behind a chunk's payload
    TRAILER = 4
    NOTHING = 5


class Chunks:
    """One body. `feed` returns (payload pieces, bytes of the piece that belong to this message)."""

    __slots__ = ("_expect", "_held", "_left", "_trailer_bytes", "done")

    def __init__(self) -> None:
        self.done = False
        self._expect = _Expect.SIZE
        self._left = 0  # payload bytes of the current chunk still to come
        self._held = b""  # an unfinished line
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> tuple[list[bytes], int]:
        """Raises Malformed. Behind the message's end nothing is read: the second value says how far it went."""
        payload: list[bytes] = []
        at, size = 0, len(data)
        while at < size and not self.done:
            if self._expect is _Expect.PAYLOAD:
                piece = data[at : at + self._left] if at or self._left < size else data
                payload.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._expect = _Expect.CRLF
            else:
                at = self._line(data, at)
        return payload, at

    def _line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        line = self._held + data[at : end + 1 if end >= 0 else len(data)]
        bytes_max = TRAILER_BYTES_MAX if self._expect is _Expect.TRAILER else SIZE_LINE_BYTES_MAX
        if len(line) > bytes_max:
            raise Malformed("a chunk-size or trailer line of the answer is too long")
        if end < 0:
            self._held = line
            return len(data)
        self._held = b""
        if line[-2:] != b"\r\n":
            raise Malformed("a line of the answer's chunked framing does not end with CRLF")
        self._take(line[:-2])
        return end + 1

    def _take(self, line: bytes) -> None:
        if self._expect is _Expect.SIZE:
            found = _SIZE.fullmatch(line)
            if found is None:
                raise Malformed("a chunk of the answer has no size")
            self._left = int(found[1], 16)
            self._expect = _Expect.PAYLOAD if self._left else _Expect.TRAILER
        elif self._expect is _Expect.CRLF:
            if line:
                raise Malformed("a chunk of the answer is longer than its size")
            self._expect = _Expect.SIZE
        elif line:
            self._trailer_bytes += len(line)
            if _TRAILER.fullmatch(line) is None or self._trailer_bytes > TRAILER_BYTES_MAX:
                raise Malformed("the answer's trailer is not header lines, or too long")
        else:
            self._expect = _Expect.NOTHING
            self.done = True
