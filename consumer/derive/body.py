"""A side of the envelope -> its body, with encodings undone and cut into JSON documents."""

import base64
import binascii

from clearpane.contract import bodies
from consumer.derive import documents
from consumer.derive.arrays import ArrayError
from consumer.derive.documents import Body
from consumer.derive.sse import SSEError
from consumer.derive.untrusted import Malformed, Mapping, mapping, text

DECODED_BYTES_MAX = 32 << 20
DECODED_RATIO_MAX = 200

_OURS = ("json", "event-stream", "eventstream")


def read(side: Mapping, *, cut: bool) -> Body:
    """`side` is the envelope's `request` or `response`. Never raises; `error` says what could not be read."""
    body = Body(cut=cut or side.get("truncated") is True)
    try:
        body.data = _decoded(side, body)
        documents.parse(body)
    except (Malformed, SSEError, ArrayError) as error:
        if _is_ours(side):
            body.error = body.error or str(error)
    return body


def _is_ours(side: Mapping) -> bool:
    """Audio, images, forms and pages are no damaged JSON. A body without a type is taken for JSON."""
    stated = text(mapping(side.get("headers")).get("content-type"))
    return stated is None or any(name in stated for name in _OURS)


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
    if found.error == bodies.DAMAGED and not found.data:
        return data  # undone by the proxy: base64 because it is binary
    body.error = found.error
    return found.data
