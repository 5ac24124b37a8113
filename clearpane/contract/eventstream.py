"""AWS event streams (`application/vnd.amazon.eventstream`), as Bedrock streams: bytes in, messages out, no I/O.

https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html describes the framing. Both checksums are
checked. A message that fails is left out, and the next one is looked for: a key that the proxy redacted changes a message's
length, and the usage comes last.
"""

import base64
import struct
import zlib
from dataclasses import dataclass, field

import orjson

MESSAGE_BYTES_MAX = 16 << 20
MESSAGES_MAX = 200_000
SEARCHES_MAX = 100_000  # places tried as the start of a message, after one that failed

_PRELUDE = struct.Struct(">III")  # length of the message, length of its headers, checksum of these two
_CHECKSUM = struct.Struct(">I")
_SMALLEST = _PRELUDE.size + _CHECKSUM.size
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # header type -> bytes of its value
_BYTES, _TEXT = 6, 7  # two bytes of length, then the value

DAMAGED = "event stream: a message is damaged"
TORN = "event stream: it ends within a message"


@dataclass(frozen=True, slots=True)
class Message:
    headers: dict[str, str]  # those that hold texts
    payload: bytes
    end: int  # bytes of the stream up to its end

    @property
    def name(self) -> str:
        """Of the event, or of the error."""
        return self.headers.get(":exception-type") or self.headers.get(":error-code") or self.headers.get(":event-type", "")

    @property
    def content(self) -> bytes | None:
        """Bedrock wraps what a model itself streams: `{"bytes": base64}` in events named `chunk`. None: that is not what it holds."""
        payload = self.payload or b"{}"
        if self.name != "chunk":
            return payload
        try:
            wrapped = orjson.loads(payload)
            return base64.b64decode((wrapped.get("bytes") if isinstance(wrapped, dict) else None) or "", validate=True)
        except (ValueError, TypeError):
            return None


@dataclass(slots=True)
class Decoded:
    messages: list[Message] = field(default_factory=list)
    damaged: bool = False  # at least one message was left out
    torn: bool = False  # the last message has not come whole
    full: bool = False  # there are more messages than are read


def starts(data: bytes) -> bool:
    """The bytes begin with the prelude of a message."""
    return _length(data, 0) is not None


def decode(data: bytes) -> Decoded:
    """Never raises."""
    found, at, searches = Decoded(), 0, SEARCHES_MAX
    while len(data) - at >= _SMALLEST and not found.full:
        length = _length(data, at)
        if length is not None and at + length > len(data):
            break
        message = _message(data, at, length) if length is not None else None
        if message is not None:
            found.messages.append(message)
            found.full = len(found.messages) == MESSAGES_MAX
            at = message.end
        else:
            found.damaged = True
            at, searches = _next(data, at + 1, searches)
    found.torn = at < len(data) and not found.full
    return found


def _length(data: bytes, at: int) -> int | None:
    """Of the message that starts there; None when no message does."""
    if len(data) - at < _PRELUDE.size:
        return None
    length, headers, checksum = _PRELUDE.unpack_from(data, at)
    fits = _SMALLEST + headers <= length <= MESSAGE_BYTES_MAX
    return length if fits and zlib.crc32(data[at : at + 8]) == checksum else None


def _next(data: bytes, at: int, searches: int) -> tuple[int, int]:
    """Where the next message may start, and how many searches are left. A length below 16 MiB begins with a zero."""
    while searches > 0 and (at := data.find(b"\0", at)) >= 0:
        searches -= 1
        if _length(data, at) is not None:
            return at, searches
        at += 1
    return len(data), searches


def _message(data: bytes, at: int, length: int) -> Message | None:
    """None when its checksum or its headers say that it is damaged."""
    body, end = at + _PRELUDE.size, at + length
    if zlib.crc32(memoryview(data)[at : end - _CHECKSUM.size]) != _CHECKSUM.unpack_from(data, end - _CHECKSUM.size)[0]:
        return None
    payload = body + _PRELUDE.unpack_from(data, at)[1]
    headers = _headers(data[body:payload])
    return None if headers is None else Message(headers, data[payload : end - _CHECKSUM.size], end)


def _headers(data: bytes) -> dict[str, str] | None:
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        value = at + 1 + data[at] + 1  # behind the name's length, the name and the type
        if value > len(data):
            return None
        name, kind = data[at + 1 : value - 1], data[value - 1]
        size = _SIZES.get(kind)
        if kind in (_BYTES, _TEXT) and value + 2 <= len(data):
            size, value = int.from_bytes(data[value : value + 2], "big"), value + 2
        if size is None or value + size > len(data):
            return None
        if kind == _TEXT:
            found[name.decode("utf-8", "replace")] = data[value : value + size].decode("utf-8", "replace")
        at = value + size
    return found
