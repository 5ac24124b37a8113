"""A body's bytes -> the JSON documents in it: one for plain JSON, one per event, message, line or element of a stream."""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from clearpane.contract import eventstream, multipart
from clearpane.contract.eventstream import Message
from consumer.derive.arrays import Splitter
from consumer.derive.sse import Event, Parser
from consumer.derive.untrusted import Malformed, Mapping, loads, mapping

DOCUMENTS_MAX = 200_000  # a real stream of the largest body that is kept has fewer
_PIECE_BYTES = 256 << 10  # parsed at a time, so that a body of nothing but line ends is not a million lines at once

_BOM = b"\xef\xbb\xbf"
_DONE = b"[DONE]"
_EVENTS = (b"data:", b"event:", b":", b"id:", b"retry:")
_LINE = re.compile(rb"[^\n]+")
_FRAME = {"at_ms", "type", "data"}  # one message of a WebSocket, as the proxy writes it


@dataclass(slots=True)
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
    socket: bool = False  # its lines are the messages of a WebSocket
    documents: list[Document] = field(default_factory=list)
    error: str | None = None  # the first thing that could not be read


def parse(body: Body) -> None:
    """Fills `documents`; what begins a body says how it is framed. Raises Malformed, SSEError, ArrayError."""
    head = body.data[:64].lstrip(_BOM + b" \t\r\n")
    if head.startswith(b"{") or (head.startswith(b"[") and not body.cut):
        _parse_whole(body)
    elif head.startswith(b"["):
        _parse_array(body)
    elif head.startswith(_EVENTS):
        _parse_events(body)
    elif eventstream.starts(body.data):
        _parse_messages(body)
    elif multipart.boundary(body.data):
        body.documents.append(Document(multipart.fields(body.data), len(body.data)))
    elif head:
        raise Malformed("body is neither JSON nor an event stream")


def _parse_whole(body: Body) -> None:
    try:
        value = loads(body.data.removeprefix(_BOM))
    except Malformed:
        if not _begins_with_a_line(body.data):
            raise
        _parse_lines(body)
        return
    if isinstance(value, list):
        _parse_array(body)  # read again in pieces, for where each one ends
    elif mapping(value).keys() == _FRAME:
        _parse_lines(body)
    else:
        body.documents.append(Document(value, len(body.data)))


def _begins_with_a_line(data: bytes) -> bool:
    """The first line is JSON by itself: one document a line, as Ollama streams and batches are stored."""
    line, end, _ = data.removeprefix(_BOM).lstrip().partition(b"\n")
    try:
        return bool(end) and isinstance(loads(line), dict)
    except Malformed:
        return False


def _parse_lines(body: Body) -> None:
    body.streamed = True
    for number, match in enumerate(_LINE.finditer(body.data.removeprefix(_BOM))):
        if number == DOCUMENTS_MAX:
            body.cut = True
            raise Malformed(f"more than {DOCUMENTS_MAX} lines")
        if line := match[0].strip():
            _add(body, line, match.end(), "", torn=body.cut and match.end() == len(body.data))


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


def _parse_messages(body: Body) -> None:
    body.streamed = True
    found = eventstream.decode(body.data)
    if found.damaged:
        body.error = eventstream.DAMAGED
    elif found.torn and not body.cut:
        body.error = eventstream.TORN
    for message in found.messages:
        _add_message(body, message)


def _add_message(body: Body, message: Message) -> None:
    if (content := message.content) is None:
        body.error = body.error or "event stream: a chunk is not base64"
    else:
        _add(body, content, message.end, message.name)


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
        value = loads(data)
        if isinstance(value, dict) and len(value) == len(_FRAME) and value.keys() == _FRAME:
            body.socket = True
            value = _framed(value)
        body.documents.append(Document(value, end, name))
    except Malformed as error:
        if not torn:
            body.error = body.error or str(error)


def _framed(frame: Mapping) -> Any:
    """What a WebSocket's message holds. Gemini sends JSON in binary ones; audio is no document, and null here."""
    data = frame["data"]
    if not isinstance(data, str):
        raise Malformed("a WebSocket's message holds no text")
    if frame["type"] == "text":
        return loads(data.encode("utf-8", "replace"))
    try:
        plain = base64.b64decode(data.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("a WebSocket's message is not base64") from None
    return loads(plain) if plain.lstrip()[:1] == b"{" else None
