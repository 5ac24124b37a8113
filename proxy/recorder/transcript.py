"""One side of a WebSocket, as it went over the wire -> JSON lines, one per message. Pure.

    {"at_ms": 12.3, "type": "text", "data": "..."}     binary data in base64
    {"at_ms": 99.1, "type": "close", "code": 1000, "data": "the reason"}
    {"at_ms": 99.1, "type": "unreadable", "data": "why"}     nothing is read behind it

`at_ms` is when the message's last byte passed, since the call was received. Pings and pongs are left out.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from clearpane.contract import bodies, secrets
from proxy.websocket import Message, Messages, NotWebSocket

# A side's wire is bounded where it is captured; compression and the lines' own form can make more of it.
LINES_MAX, LINES_BYTES_MAX = 64 << 10, 32 << 20
_EXTENSION = b"permessage-deflate"


class Transcript(NamedTuple):
    lines: bytes
    cut: bool  # not all that was captured is in it
    redactions: int


def deflated(head: bytes) -> bool:
    """`head`: the header lines of the 101."""
    lines = (line.partition(b":") for line in head.split(b"\r\n"))
    return any(_EXTENSION in value.lower() for name, _, value in lines if name.lower() == b"sec-websocket-extensions")


def transcript(pieces: Sequence[bytes], times_ms: Iterable[float], *, deflated: bool, known: tuple[bytes, ...]) -> Transcript:
    """`known`: the caller's secrets, which are taken out."""
    messages = Messages(deflated=deflated, message_bytes_max=LINES_BYTES_MAX)
    lines: list[bytes] = []
    size = redactions = 0
    at_ms = 0.0
    try:
        for piece, at_ms in zip(pieces, times_ms, strict=False):  # of the piece at the bound nothing may be kept
            for message in messages.feed(piece):
                line, found = _line(message, at_ms, known)
                size += len(line)
                redactions += found
                if size > LINES_BYTES_MAX or len(lines) == LINES_MAX:
                    return Transcript(b"".join(lines), True, redactions)
                lines.append(line)
    except NotWebSocket as error:
        lines.append(_json({"at_ms": round(at_ms, 3), "type": "unreadable", "data": str(error)}))
        return Transcript(b"".join(lines), True, redactions)
    return Transcript(b"".join(lines), False, redactions)


def _line(message: Message, at_ms: float, known: tuple[bytes, ...]) -> tuple[bytes, int]:
    payload, found = secrets.scrub(message.payload, known)
    line: dict[str, Any] = {"at_ms": round(at_ms, 3), "type": message.kind}
    if message.kind == "close":
        line["code"] = message.code
    line["data"] = bodies.as_base64(payload)[0] if message.kind == "binary" else payload.decode("utf-8", "replace")
    return _json(line), found


def _json(line: dict[str, Any]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
