"""A relay of a chat that is asked for its usage, though its caller did not ask (proxy/stream_options.py).

The record has the answer as the upstream sent it, and says how many bytes of it the client did not see. Whatever cannot be
asked, or taken out again, goes by as in any other relay, with the reason on the record and in a count.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Literal

from clearpane.contract.envelope import End
from proxy import metrics
from proxy.call import Call, Failure
from proxy.headers import first, lower
from proxy.relay import Client, Owner, Relay
from proxy.stream_options import BODY_BYTES_MAX, Filter, NotUnderstood, ask
from proxy.upstream.answer import Framing, Head
from proxy.upstream.parser import Event, Piece

Reason = Literal["encoded_request", "request_too_large", "unreadable_request", "encoded_answer"]

_LENGTH = re.compile(rb"\r\ncontent-length:[^\r]*", re.IGNORECASE)
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


class UsageRelay(Relay):
    """Ordinary until `ask` has changed the request, and then until the answer turns out to be a stream of plain text."""

    __slots__ = ("_chunked", "_filter", "_reason", "_requested")

    def __init__(self, call: Call, client: Client, owner: Owner, *, close: bool) -> None:
        super().__init__(call, client, owner, close=close)
        self._requested = False
        self._reason: Reason | None = None
        self._filter: Filter | None = None
        self._chunked = False  # the answer's framing to the client is ours

    # The request

    def may_gather(self) -> bool:
        """Whether the body is small enough to be read before it is sent, as far as its length is stated."""
        if (self.call.plan.length or 0) > BODY_BYTES_MAX:
            self._reason = "request_too_large"
        return self._reason is None

    async def gather(self, read: Callable[[], Awaitable[bytes]]) -> tuple[bytes | None, bytes]:
        """The whole body; or None, and what of it has come, when it is too large. `read` gives pieces, and an empty one at the end."""
        pieces: list[bytes] = []
        try:
            while piece := await read():
                pieces.append(piece)
                if self.call.request.seen > BODY_BYTES_MAX:
                    self._reason = "request_too_large"
                    return None, b"".join(pieces)
        except ConnectionError:
            self.client_lost(drain_s=0, stuck=True)
        return b"".join(pieces), b""

    def ask(self, body: bytes) -> bytes:
        """The body for the upstream."""
        if _encoded(first(self.call.plan.headers, b"content-encoding")):
            self._reason = "encoded_request"
            return body
        try:
            asked = ask(body)
        except NotUnderstood:
            self._reason = "unreadable_request"
            return body
        self._requested = asked is not None
        return body if asked is None else asked

    # The answer

    def on_events(self, events: list[Event]) -> None:
        super().on_events([each for event in events for each in self._shown(event)] if self._requested else events)

    def _shown(self, event: Event) -> list[Event]:
        if isinstance(event, Head):
            return [event if event.interim else self._begin(event)]
        if self._filter is None:
            return [event]
        if event is None:
            return [Piece(self._framed(self._filter.close()) + (_LAST_CHUNK if self._chunked else b""), []), None]
        return [Piece(self._framed(self._filter.feed(b"".join(event.payload))), event.payload)]

    def _begin(self, head: Head) -> Head:
        headers = head.headers
        if head.framing is Framing.NONE:  # nothing may stand behind this head, not even the end of a chunked body
            return head
        if not (first(headers, b"content-type") or b"").lower().startswith(b"text/event-stream"):
            return head
        if _encoded(first(headers, b"content-encoding")):
            self._reason = "encoded_answer"
            return head
        self._filter, self._chunked = Filter(), head.framing is not Framing.CLOSE
        if head.framing is not Framing.LENGTH:
            return head
        return replace(head, passing=_LENGTH.sub(b"", head.passing) + _CHUNKED, framing=Framing.CHUNKED)

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if data and self._chunked else data

    def _break_off(self) -> None:
        """What was held back of an unfinished event still goes out: the client sees the break where it is."""
        if self._filter is not None and self._client is not None and (rest := self._framed(self._filter.close())):
            self._client.send(rest)
        super()._break_off()

    def _finish(self, end: End, failure: Failure | None = None) -> None:
        if not self.over and (self._requested or self._reason is not None):
            withheld_bytes = self._filter.withheld_bytes if self._filter is not None else 0
            self.call.include_usage = (self._requested, withheld_bytes, self._reason)
            metrics.INCLUDE_USAGE.labels(self._reason or ("withheld" if withheld_bytes else "absent")).inc()
        super()._finish(end, failure)


def _encoded(coding: bytes | None) -> bool:
    return coding is not None and lower(coding.strip(b" \t")) not in (b"", b"identity")
