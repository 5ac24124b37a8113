"""A relay of a chat that is asked for its usage, though its caller did not ask (proxy/stream_options.py).

The record has the answer as the upstream sent it, and says how many bytes of it the client did not see. Whatever cannot be
asked, or taken out again, goes by as in any other relay; where a stream came of it, the record and a count have the reason.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Literal

from clearpane.contract.envelope import End
from proxy import metrics
from proxy.call import Call, Failure
from proxy.headers import first, lower
from proxy.plan import BadRequest, Plan
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
        self._reason = _ruled_out(call.plan)
        self._filter: Filter | None = None
        self._chunked = False  # the answer's framing to the client is ours

    # The request

    @property
    def needs_whole(self) -> bool:
        """Whether the body is to be read before it is sent: it may ask for a stream, and be small enough."""
        return self._reason is None

    async def gather(self, read: Callable[[], Awaitable[bytes]]) -> tuple[bytes | None, bytes]:
        """The whole body; or None, and what of it has come, when it is too large. `read` gives pieces, and an empty one at the end.

        The call is over when the client left, or what it sent is no body that can be sent on.
        """
        pieces: list[bytes] = []
        try:
            while piece := await read():
                pieces.append(piece)
                if self.call.request.seen > BODY_BYTES_MAX:
                    self._reason = "request_too_large"
                    return None, b"".join(pieces)
        except ConnectionError:
            self.client_lost(drain_s=0, stuck=True)
        except BadRequest as error:
            self.refuse(error.status, error.reason, str(error), end="client_error", close=True)
        return b"".join(pieces), b""

    def ask(self, body: bytes) -> bytes:
        """The body for the upstream."""
        if self._reason is not None:
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
        if not _is_stream(head):
            return head
        if _encoded(first(headers, b"content-encoding")):
            self._reason = "encoded_answer"
            return head
        self._filter, self._chunked = Filter(), head.framing is not Framing.CLOSE
        if head.framing is not Framing.LENGTH:
            return head
        return head.passed_on(_LENGTH.sub(b"", head.passing) + _CHUNKED, Framing.CHUNKED)

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if data and self._chunked else data

    def _break_off(self) -> None:
        """What was held back of an unfinished event still goes out: the client sees the break where it is."""
        if self._filter is not None and self._client is not None and (rest := self._framed(self._filter.close())):
            self._client.send(rest)
        super()._break_off()

    def _finish(self, end: End, failure: Failure | None = None) -> None:
        if not self.over:
            self._note()
        super()._finish(end, failure)

    def _note(self) -> None:
        """Of what was asked and sent, and of each stream that was not asked."""
        requested = self._requested and self.call.upstream_started_ms is not None
        if not requested and (self._reason is None or self.head is None or not _is_stream(self.head)):
            return
        withheld_bytes = self._filter.withheld_bytes if self._filter is not None else 0
        self.call.include_usage = (requested, withheld_bytes, self._reason)
        metrics.INCLUDE_USAGE.labels(self._reason or ("withheld" if withheld_bytes else "absent")).inc()


def _ruled_out(plan: Plan) -> Reason | None:
    """Why such a request is not asked, as far as its head says."""
    if _encoded(first(plan.headers, b"content-encoding")):
        return "encoded_request"
    return "request_too_large" if (plan.length or 0) > BODY_BYTES_MAX else None


def _is_stream(head: Head) -> bool:
    return (first(head.headers, b"content-type") or b"").lower().startswith(b"text/event-stream")


def _encoded(coding: bytes | None) -> bool:
    return coding is not None and lower(coding.strip(b" \t")) not in (b"", b"identity")
