"""The head of an upstream's answer, and where its message ends (RFC 9112 section 6.3). Pure.

Strict about whatever decides the end of a message, since a proxy that guesses there hands one caller's
bytes to another: length and transfer coding are refused unless they can be read in one way only.
"""

import re
from enum import Enum
from functools import lru_cache

from proxy.headers import HOP_BY_HOP, response_fields
from proxy.upstream.faults import Malformed

Headers = list[tuple[bytes, bytes]]

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: [^\x00-\x08\x0a-\x1f\x7f]*)?")
# All header lines at once: names are tokens, values hold no control byte but the tab.
_FIELDS = re.compile(rb"(?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*+)*+")
_LENGTH = re.compile(rb"[0-9]{1,18}")


class Framing(Enum):
    NONE = "none"  # no body, whatever the headers say
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"  # the body ends with the connection


# Looking a member up in its class costs more than the rest of the decision.
_NONE, _LENGTH_STATED, _CHUNKED, _CLOSE = Framing.NONE, Framing.LENGTH, Framing.CHUNKED, Framing.CLOSE
# The lines that decide about the message or the hop, of a head in small letters; the values without their padding.
_DECIDING = re.compile(rb"\r\n(content-length|transfer-encoding|" + b"|".join(sorted(HOP_BY_HOP)) + rb"):[ \t]*([^\r]*?)[ \t]*(?=\r|\Z)")


class Head:
    """`fields` are the header lines as they came, from CRLF to CRLF; `passing` those of them that go on to the client.

    `status_line` is HTTP/1.1's, whatever the upstream speaks. `length` goes with Framing.LENGTH. `persistent`: the
    connection may serve another call.
    """

    # Compiled, a dataclass would be made by the interpreter all the same, for each call.
    __slots__ = ("fields", "framing", "length", "passing", "persistent", "status", "status_line")

    def __init__(
        self, status: int, status_line: bytes, fields: bytes, passing: bytes, framing: Framing, length: int, persistent: bool
    ) -> None:
        self.status = status
        self.status_line = status_line
        self.fields = fields
        self.passing = passing
        self.framing = framing
        self.length = length
        self.persistent = persistent

    def passed_on(self, passing: bytes, framing: Framing, *, persistent: bool = True) -> "Head":
        """The same answer, but for what the client sees of it."""
        return Head(self.status, self.status_line, self.fields, passing, framing, self.length, persistent and self.persistent)

    @property
    def interim(self) -> bool:
        return self.status < 200 and self.status != 101

    @property
    def headers(self) -> Headers:
        """Order, spelling and duplicates as they came."""
        lines = self.fields[2:-2].split(b"\r\n") if len(self.fields) > 2 else []
        return [(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]


def parse_head(block: bytes, method: str) -> Head:
    """`block` ends before the empty line. Raises Malformed."""
    end = block.find(b"\r\n")
    end = len(block) if end < 0 else end
    minor, status, status_line = _status(block[:end])
    if _FIELDS.fullmatch(block, end) is None:
        raise Malformed("the answer has a header line that is not `name: value`")
    codings: list[bytes] = []
    lengths: list[bytes] = []
    persistent, names_hop = minor == 1, False
    for name, value in _DECIDING.findall(block.lower(), end):
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        else:
            names_hop = True
            if name == b"connection" and b"close" in value:
                persistent = False
    fields = block[end:] + b"\r\n"
    framing, length = _framing(status, method, codings, lengths)
    passing = response_fields(fields) if names_hop else fields
    if framing is _CLOSE or (framing is _NONE and _contradicts_itself(status, codings, lengths)):
        persistent = False
    return Head(status, status_line, fields, passing, framing, length, persistent)


@lru_cache(maxsize=256)
def _status(line: bytes) -> tuple[int, int, bytes]:
    """Minor version, status, and the line for the client."""
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise Malformed("the answer does not begin with an HTTP/1.1 status line")
    return int(found[1]), int(found[2]), b"HTTP/1.1" + line[8:]


def _framing(status: int, method: str, codings: list[bytes], lengths: list[bytes]) -> tuple[Framing, int]:
    if codings and (codings != [b"chunked"] or lengths):
        raise Malformed("the answer's transfer-encoding is not exactly `chunked`, or a content-length stands beside it")
    if lengths and (_LENGTH.fullmatch(lengths[0]) is None or lengths.count(lengths[0]) != len(lengths)):
        raise Malformed("the answer's content-length is not one whole number")
    if method == "HEAD" or status < 200 or status == 204 or status == 304:
        return _NONE, 0
    if codings:
        return _CHUNKED, 0
    if lengths:
        return _LENGTH_STATED, int(lengths[0])
    return _CLOSE, 0


def _contradicts_itself(status: int, codings: list[bytes], lengths: list[bytes]) -> bool:
    """A body is stated where none can be, and may come all the same: it would be read as the answer to the next call."""
    return (status < 200 or status == 204) and (bool(codings) or any(map(int, lengths)))
