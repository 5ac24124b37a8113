"""Where a request ends, told from its bytes, for the requests that need no parser to know: one head, one length. Pure.

Whatever is not plain (chunked, an upgrade, `Expect`, HTTP/1.0, two lengths, odd spelling) is left to the server's
parser. What is plain is still parsed by it once: only a head that it has accepted is known by its bytes later.
"""

import re

_LENGTH, _LENGTH_SMALL = b"\r\nContent-Length: ", b"\r\ncontent-length: "
_DIGITS_MAX = 15
_PLAIN = re.compile(rb"(?:GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS) /[!-~]* HTTP/1\.1\r\n")
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_WITH, _WITHOUT = b"+", b"-"
_ODD = re.compile(rb"\n(?:[ \t\r\n]|transfer-encoding|content-length|upgrade|expect|http2-settings)", re.IGNORECASE)


class Span:
    """A request at the beginning of some bytes.

    `key`: the head without the line of its length, and whether there was one. `head` and `size` count the bytes of
    the head and of the whole. `length`: as stated.
    """

    __slots__ = ("head", "key", "length", "size")

    def __init__(self, key: bytes, head: int, size: int, length: int | None) -> None:
        self.key = key
        self.head = head
        self.size = size
        self.length = length


def span_of(data: bytes) -> Span | None:
    """None while the head is not all there."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    at = data.find(_LENGTH, 0, end)
    at = at if at >= 0 else data.find(_LENGTH_SMALL, 0, end)
    if at < 0:
        return Span(_WITHOUT + data[:end], end + 4, end + 4, None)
    after = data.find(b"\r", at + 2, end + 1)
    digits = data[at + len(_LENGTH) : after]
    if not digits.isdigit() or len(digits) > _DIGITS_MAX:
        return Span(_WITHOUT + data[:end], end + 4, end + 4, None)  # the line stays in the key, where it is odd
    length = int(digits)
    return Span(_WITH + data[:at] + data[after:end], end + 4, end + 4 + length, length)


def may_be_head(data: bytes) -> bool:
    """Whether these bytes, in which no head ends, are the beginning of a plain one."""
    return data[:1].isalpha() and _BARE_LINE_FEED.search(data) is None


def is_plain(key: bytes) -> bool:
    """Whether the span of this head is all that can be meant."""
    return _PLAIN.match(key + b"\r\n", 1) is not None and _ODD.search(key) is None
