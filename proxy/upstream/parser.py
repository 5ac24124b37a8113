"""One answer after another on one connection: bytes in, head, body pieces and end out. Sans I/O.

A body is handed on as it came, framing included (`raw`), with the payload inside it (`payload`).
"""

from proxy.upstream.answer import Framing, Head, parse_head
from proxy.upstream.chunks import Chunks
from proxy.upstream.faults import Broken, Malformed

# An upstream may send interim answers (103 and the like) before the real one, but not without end.
INTERIM_MAX = 16


class Piece:
    """A part of the body: `raw` as on the wire, `payload` without the transfer framing."""

    __slots__ = ("payload", "raw")

    def __init__(self, raw: bytes, payload: list[bytes]) -> None:
        self.raw = raw
        self.payload = payload


Event = Head | Piece | None  # None: the message is complete


class Parser:
    """One answer. `feed` returns what the bytes brought, in order; the last event of an answer is None.

    `may_switch`: a WebSocket was asked for. Behind the 101 everything is body, until the connection's end.
    """

    __slots__ = (
        "_chunks",
        "_head_bytes_max",
        "_headers_max",
        "_held",
        "_interim",
        "_left",
        "_method",
        "_persistent",
        "complete",
        "excess",
        "head",
        "may_switch",
    )

    def __init__(self, method: str, *, head_bytes_max: int, headers_max: int) -> None:
        self.head: Head | None = None
        self.complete = False
        self.excess = False  # bytes came behind the end of the message
        self.may_switch = False
        self._method = method
        self._head_bytes_max = head_bytes_max
        self._headers_max = headers_max
        self._held = b""
        self._left = 0
        self._chunks: Chunks | None = None
        self._interim = 0
        self._persistent = True

    def feed(self, data: bytes) -> list[Event]:
        """Raises Malformed; what the same bytes had brought before is then lost with them."""
        events: list[Event] = []
        while data and not self.complete:
            head = self.head
            data = self._feed_head(data, events) if head is None else self._feed_body(head, data, events)
        if data:
            self.excess = True
        return events

    def eof(self) -> None:
        """The upstream has closed. Raises Broken unless that is how this answer ends."""
        if self.complete:
            return
        if self.head is None or self.head.framing is not Framing.CLOSE:
            raise Broken("the upstream closed the connection before its answer was complete")
        self.complete = True

    @property
    def reusable(self) -> bool:
        return self.complete and not self.excess and self._persistent

    def _feed_head(self, data: bytes, events: list[Event]) -> bytes:
        data = self._held + data
        end = data.find(b"\r\n\r\n")
        block = data if end < 0 else data[:end]
        if len(block) > self._head_bytes_max or block.count(b"\n") > self._headers_max:
            raise Malformed("the head of the answer is larger than header_bytes_max or headers_max allow")
        if end < 0:
            self._held = data
            if b"\n\n" in data:  # such a head would never end here
                raise Malformed("the head of the answer has bare line feeds")
            return b""
        self._held = b""
        head = parse_head(block, self._method)
        if head.status == 101:
            head = self._switched(head)
        self._persistent = self._persistent and head.persistent
        if head.interim:
            self._interim += 1
            if self._interim > INTERIM_MAX:
                raise Malformed(f"more than {INTERIM_MAX} interim answers")
        else:
            self.head = head
            self._left = head.length
            self._chunks = Chunks() if head.framing is Framing.CHUNKED else None
        events.append(head)
        if self.head is not None and (head.framing is Framing.NONE or (head.framing is Framing.LENGTH and not head.length)):
            self._end(events)
        return data[end + 4 :]

    def _switched(self, head: Head) -> Head:
        """Its hop-by-hop lines go on to the client, who asked for them."""
        if not self.may_switch:
            raise Malformed("the upstream switched protocols, which nobody had asked for")
        if [value.lower() for name, value in head.headers if name.lower() == b"upgrade"] != [b"websocket"]:
            raise Malformed("the upstream switched to a protocol other than the WebSocket that was asked for")
        return head.passed_on(head.fields, Framing.CLOSE, persistent=False)

    def _feed_body(self, head: Head, data: bytes, events: list[Event]) -> bytes:
        if self._chunks is not None:
            payload, used = self._chunks.feed(data)
            raw = data if used == len(data) else data[:used]
            events.append(Piece(raw, payload))
            if self._chunks.done:
                self._end(events)
            return data[used:]
        if head.framing is Framing.CLOSE:
            events.append(Piece(data, [data]))
            return b""
        raw = data if len(data) <= self._left else data[: self._left]
        self._left -= len(raw)
        events.append(Piece(raw, [raw]))
        if not self._left:
            self._end(events)
        return data[len(raw) :]

    def _end(self, events: list[Event]) -> None:
        self.complete = True
        events.append(None)
