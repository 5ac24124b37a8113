"""A side of the envelope -> the JSON documents in its body: one for plain JSON, one per event or element of a stream."""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from clearpane.contract import bodies
from consumer.derive.arrays import ArrayError, Splitter
from consumer.derive.sse import Event, Parser, SSEError
from consumer.derive.untrusted import Malformed, Mapping, loads, mapping, text

DECODED_BYTES_MAX = 32 << 20
DECODED_RATIO_MAX = 200
DOCUMENTS_MAX = 200_000  # a real stream of the largest body that is kept has fewer
_PIECE_BYTES = 256 << 10  # parsed at a time, so that a body of nothing but line ends is not a million lines at once

_DONE = b"[DONE]"


@dataclass(frozen=True, slots=True)
class Document:
    value: Any
    end: int  # bytes of the body up to its end
    event: str = ""  # the event's name, where the stream names them


@dataclass(slots=True)
class Body:
    """`data` is decoded; empty when the envelope has none. `cut`: bytes are missing at its end."""

    data: bytes = b""
    cut: bool = False
    streamed: bool = False  # it holds a stream's events, not one document
    done: bool = False  # the stream said `[DONE]`
    documents: list[Document] = field(default_factory=list)
    error: str | None = None  # the first thing that could not be read


def read(side: Mapping, *, cut: bool) -> Body:
    """`side` is the envelope's `request` or `response`. Never raises; `error` says what could not be read."""
    body = Body(cut=cut or side.get("truncated") is True)
    try:
        body.data = _decoded(side, body)
        _parse(body)
    except (Malformed, SSEError, ArrayError) as error:
        if _is_ours(side):
            body.error = body.error or str(error)
    return body


def _is_ours(side: Mapping) -> bool:
    """Audio, images, forms and pages are no damaged JSON. A body without a type is taken for JSON."""
    stated = text(mapping(side.get("headers")).get("content-type"))
    return stated is None or "json" in stated or "event-stream" in stated


def _decoded(side: Mapping, body: Body) -> bytes:
    wire = text(side.get("body"))
    if wire is None:
        return b""
    if side.get("body_encoding") != "base64":
        return wire.encode("utf-8", "replace")
    try:
        data = base64.b64decode(wire.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("body is not base64") from None
    coding = text(side.get("content_encoding"))
    if coding is None:
        return data
    found = bodies.decode(data, coding, bytes_max=DECODED_BYTES_MAX, ratio_max=DECODED_RATIO_MAX, complete=not body.cut)
    body.error = found.error
    return found.data


def _parse(body: Body) -> None:
    head = body.data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head:
        return
    if head.startswith(b"{") or (head.startswith(b"[") and not body.cut):
        _parse_whole(body)
    elif head.startswith(b"["):
        _parse_array(body)
    elif head.startswith((b"data:", b"event:", b":", b"id:", b"retry:")):
        _parse_events(body)
    else:
        raise Malformed("body is neither JSON nor an event stream")


def _parse_whole(body: Body) -> None:
    value = loads(body.data.removeprefix(b"\xef\xbb\xbf"))
    if isinstance(value, list):
        _parse_array(body)  # read again in pieces, for where each one ends
    else:
        body.documents.append(Document(value, len(body.data)))


def _parse_array(body: Body) -> None:
    body.streamed = True
    splitter = Splitter()
    for piece in _pieces(body.data):
        for element in splitter.feed(piece):
            _add(body, element.data, element.end, "")


def _parse_events(body: Body) -> None:
    body.streamed = True
    parser = Parser()
    for piece in _pieces(body.data):
        for event in parser.feed(piece):
            _add_event(body, event, torn=False)
    for event in parser.close():  # no blank line came: whole, or torn by the cut
        _add_event(body, event, torn=True)


def _add_event(body: Body, event: Event, *, torn: bool) -> None:
    if event.data == _DONE:
        body.done = True
    else:
        _add(body, event.data, event.end, event.name, torn=torn)


def _pieces(data: bytes) -> Iterator[bytes]:
    return (data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES))


def _add(body: Body, data: bytes, end: int, name: str, *, torn: bool = False) -> None:
    """One bad event does not hide the usage in the others. Raises Malformed at the bound."""
    if len(body.documents) == DOCUMENTS_MAX:
        body.cut = True
        raise Malformed(f"more than {DOCUMENTS_MAX} documents")
    try:
        body.documents.append(Document(loads(data), end, name))
    except Malformed as error:
        if not torn:
            body.error = body.error or str(error)
