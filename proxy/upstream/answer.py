"""The head of an upstream's answer, and where its message ends (RFC 9112 section 6.3). Pure.

Strict about whatever decides the end of a message, since a proxy that guesses there hands one caller's
bytes to another: length and transfer coding are refused unless they can be read in one way only.
"""

import re
from dataclasses import dataclass
from enum import Enum

from proxy.upstream.faults import Malformed

Headers = list[tuple[bytes, bytes]]

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?")
# All header lines at once: names are tokens, values hold no control byte but the tab.
_FIELDS = re.compile(rb"(?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*+)*+")
_LENGTH = re.compile(rb"[0-9]{1,18}")


class Framing(Enum):
    NONE = "none"  # no body, whatever the headers say
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"  # the body ends with the connection


@dataclass(slots=True)
class Head:
    status: int
    reason: bytes
    headers: Headers  # as they came: order, spelling, duplicates
    framing: Framing
    length: int  # with Framing.LENGTH
    persistent: bool  # the connection may serve another call

    @property
    def interim(self) -> bool:
        return self.status < 200


def parse_head(block: bytes, method: str) -> Head:
    """`block` ends before the empty line. Raises Malformed."""
    first, *lines = block.split(b"\r\n")
    found = _STATUS_LINE.fullmatch(first)
    if found is None:
        raise Malformed("the answer does not begin with an HTTP/1.1 status line")
    if _FIELDS.fullmatch(block, len(first)) is None:
        raise Malformed("the answer has a header line that is not `name: value`")
    headers = [(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]
    status = int(found[2])
    framing, length = _framing(status, method, headers)
    persistent = framing is not Framing.CLOSE and found[1] == b"1" and not _says_close(headers)
    return Head(status, found[3] or b"", headers, framing, length, persistent)


def _framing(status: int, method: str, headers: Headers) -> tuple[Framing, int]:
    codings: list[bytes] = []
    lengths: set[bytes] = set()
    for name, value in headers:
        if len(name) == 17 and name.lower() == b"transfer-encoding":
            codings.append(value.lower())
        elif len(name) == 14 and name.lower() == b"content-length":
            lengths.add(value)
    if codings and (codings != [b"chunked"] or lengths):
        raise Malformed("the answer's transfer-encoding is not exactly `chunked`, or a content-length stands beside it")
    if len(lengths) > 1 or any(_LENGTH.fullmatch(value) is None for value in lengths):
        raise Malformed("the answer's content-length is not one whole number")
    if method == "HEAD" or status < 200 or status in {204, 304}:
        return Framing.NONE, 0
    if codings:
        return Framing.CHUNKED, 0
    if lengths:
        return Framing.LENGTH, int(lengths.pop())
    return Framing.CLOSE, 0


def _says_close(headers: Headers) -> bool:
    return any(b"close" in value.lower() for name, value in headers if len(name) == 10 and name.lower() == b"connection")
