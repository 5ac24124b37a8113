"""docs/transparency.md as code: what an upstream and a client see behind the proxy of what was sent directly.

The numbers are those of the document.
"""

import re

from tests.e2e.wire import Message, parse_lines

HOP_BY_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"upgrade",
}
FRAMING = {b"content-length", b"transfer-encoding"}
OURS = re.compile(rb"Clearpane-Id: [0-9a-f-]{36}|Server-Timing: clearpane;dur=\d+\.\d{3}|Clearpane-Ignored: .+")


def at_upstream(sent: Message, host: bytes) -> Message:
    """The request that arrives when `sent` went into the proxy."""
    method, target, _ = (part for part in sent.first.split(b" ") if part)  # 6
    named = _named(sent)
    lines = [b"Host: " + host]  # 1
    for line in sent.lines:
        name = line.partition(b":")[0].lower()
        ours = name.startswith((b"clearpane-", b"helicone-")) or _spelt(line).lower() == b"expect: 100-continue"  # 3, 4
        if not ours and name not in HOP_BY_HOP | FRAMING | named | {b"host"}:  # 1, 2
            lines.append(_spelt(line))  # 6
    if sent.values(b"transfer-encoding"):
        lines.append(b"Transfer-Encoding: chunked")
    elif lengths := sent.values(b"content-length"):
        lines.append(b"Content-Length: %d" % int(lengths[0]))
    return Message(b" ".join((method, target, b"HTTP/1.1")), lines, payload=sent.payload, whole=sent.whole)  # 5, 9


def as_seen(received: Message) -> Message:
    """A received request without what may differ in its chunked framing (5)."""
    assert received.trailers == []
    return Message(received.first, received.lines, payload=received.payload, whole=received.whole)


def at_client(sent: list[Message], *, http10: bool = False) -> list[Message]:
    """The answers that arrive when an upstream has sent these."""
    # 4, 9
    return [_answer(message) for message in sent if not (http10 or message.first[9:12] == b"100") or message.first[9:10] != b"1"]


def _answer(sent: Message) -> Message:
    named = _named(sent)
    lines = [line for line in sent.lines if line.partition(b":")[0].lower() not in HOP_BY_HOP | named]  # 8
    return Message(b"HTTP/1.1 " + sent.first[9:], lines, sent.body, sent.payload, sent.trailers, sent.whole)  # 9


def without_ours(received: list[Message]) -> list[Message]:
    """Received answers without what the proxy adds to the final one (7); `Connection: close` is of its own hop (8)."""
    final = received[-1]
    added = [line for line in final.lines if OURS.fullmatch(line)]
    assert [line.partition(b":")[0] for line in added][:2] == [b"Clearpane-Id", b"Server-Timing"]
    lines = [line for line in final.lines if line not in added and line != b"Connection: close"]
    return [*received[:-1], Message(final.first, lines, final.body, final.payload, final.trailers, final.whole)]


def request_of(raw: bytes, payload: bytes) -> Message:
    head, _, body = raw.partition(b"\r\n\r\n")
    message = parse_lines(head)
    message.body, message.payload, message.whole = body, payload, True
    return message


def _spelt(line: bytes) -> bytes:
    name, _, value = line.partition(b":")
    return name + b": " + value.strip(b" \t")


def _named(message: Message) -> set[bytes]:
    """`Connection` takes names out, but not those that frame a message or say who calls."""
    kept = FRAMING | {b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"content-type", b"content-encoding"}
    return {token.strip(b" \t").lower() for value in message.values(b"connection") for token in value.split(b",")} - kept
