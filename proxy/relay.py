"""One call's bytes on their way back: from the upstream's connection to the client's, untouched and at once.

Rules:
1. Bytes go to the client before anything is written down about them.
2. Backpressure both ways: while the client's socket is full the upstream is not read.
3. Once the head is out, an upstream that breaks leaves a broken body, never a clean end.
4. Whatever happens first ends the call; what comes later changes nothing.
"""

import asyncio
from typing import Protocol

from clearpane.contract.controls import ID_HEADER, IGNORED_HEADER, TIMING_HEADER
from clearpane.contract.envelope import End
from proxy.answers import REASON_HEADER, answer_head, error_body
from proxy.call import Call, Failure
from proxy.headers import response_fields
from proxy.upstream.answer import Framing, Head
from proxy.upstream.connection import Connection
from proxy.upstream.faults import UpstreamFault
from proxy.upstream.parser import Event

_ADDED = f"{ID_HEADER}: %b\r\n{TIMING_HEADER}: clearpane;dur=%.3f\r\n".encode()
_IGNORED = f"{IGNORED_HEADER}: %b\r\n".encode()
_CLOSE = b"Connection: close\r\n"
# How long the upstream is read on when the client has left: the end of the framing may be all that is missing.
LAST_BYTES_S = 0.2


class Client(Protocol):
    """The client's connection, as a relay needs it."""

    def send(self, data: bytes) -> None: ...

    def unsent(self) -> bool: ...  # asks to be told by Relay.flushed when there is nothing left

    def break_off(self, *, reset: bool) -> None: ...

    def answered(self, *, close: bool) -> None: ...  # nothing more will be written of this answer


class Owner(Protocol):
    """Who is told, once, that nothing more will be written."""

    def done(self, relay: "Relay") -> None: ...


class Relay:
    """A sink for the upstream, a writer for the client."""

    __slots__ = (
        "_client",
        "_drain",
        "_owner",
        "_seen_when_left",
        "_waiter",
        "_whole",
        "call",
        "close",
        "connection",
        "ends_plainly",
        "head",
    )

    def __init__(self, call: Call, client: Client, owner: Owner, *, close: bool) -> None:
        self.call = call
        self.connection: Connection | None = None
        self.close = close  # the client's connection ends with this answer
        self.ends_plainly = False  # a chunked request was followed to its end, and had no trailers
        self.head: Head | None = None
        self._client: Client | None = client
        self._owner = owner
        self._waiter: asyncio.Future[None] | None = None
        self._drain: asyncio.TimerHandle | None = None
        self._seen_when_left: int | None = None  # body bytes that had gone to the client when it left
        self._whole = False  # the upstream's answer is complete; the client's socket may still be taking it

    @property
    def over(self) -> bool:
        return self.call.ended

    async def wait(self) -> None:
        """Returns when nothing more will be written."""
        if not self.over:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    # From the upstream

    def on_events(self, events: list[Event]) -> None:
        out: list[bytes] = []
        first = ended = False
        for event in events:
            if event is None:
                ended = True
            elif isinstance(event, Head):
                first = first or not event.interim
                out.append(self._head(event))
            elif self._unframed:
                out += event.payload
                self.call.body(event.payload)
            else:
                out.append(event.raw)
                self.call.body(event.payload)
        if self._client is not None and out:
            self._client.send(b"".join(out) if len(out) != 1 else out[0])
        if ended:
            self._end_of_answer()
        elif first:
            self.call.started()

    def on_fault(self, fault: UpstreamFault) -> None:
        if self.head is None:
            self.refuse(fault.status, fault.reason, str(fault), end=fault.end, source=fault.source)
            return
        self._break_off()
        self._finish(fault.end, Failure(fault.source, fault.reason, str(fault)))

    # From the client

    def paused(self) -> None:
        if self.connection is not None and not self._whole:
            self.connection.pause()

    def flushed(self) -> None:
        if self._whole:
            self._finish("complete")
        elif self.connection is not None:
            self.connection.resume()

    def client_lost(self, *, drain_s: float, stuck: bool) -> None:
        """The client is gone; `stuck`: its socket had not taken all. The upstream is cut off soon, or read on for `drain_s`.

        Clients often leave when they have seen the last event, before the last byte of the framing: if nothing
        but that was still to come, the call is complete.
        """
        self._client = None
        if self._whole or self.head is None or (stuck and not drain_s):
            self._abandon()
        elif self.connection is not None:
            self._seen_when_left = None if stuck else self.call.response.seen
            self.connection.resume()
            self._drain = asyncio.get_running_loop().call_later(max(drain_s, LAST_BYTES_S), self._abandon)

    def client_half_closed(self, *, drain_s: float) -> None:
        """The client closed its half and has not taken all: what was written still goes to it, and no more is."""
        if not self._whole:
            self.client_lost(drain_s=drain_s, stuck=True)

    def _abandon(self) -> None:
        self.give_up("client_disconnected", Failure("client", "client_disconnected", "the client closed its connection"))

    def give_up(self, end: End, failure: Failure) -> None:
        """Ends the call from our side: the upstream is cut off; a client that is still there sees a broken answer."""
        if self.over:
            return
        if self.connection is not None and not self._whole:
            self.connection.close()
        self._break_off()
        self._finish(end, failure)

    def _break_off(self) -> None:
        """Where only the end of the connection ends the body, it takes a reset to say that this is not the end."""
        if self._client is not None:
            self.close = True
            self._client.break_off(reset=self.head is not None and (self._unframed or self.head.framing is Framing.CLOSE))

    # Answers of our own

    def refuse(self, status: int, reason: str, message: str, *, end: End = "rejected", source: str = "proxy", close: bool = False) -> None:
        """An answer of the proxy itself, in the shape of the caller's SDK."""
        if self.over:
            return
        self.close = self.close or close
        call = self.call
        body = error_body(status, reason, message, request_id=call.request_id, anthropic=call.plan.anthropic)
        if self._client is not None:
            added = self._added() + b"%b: %b\r\n" % (REASON_HEADER, reason.encode())
            head = answer_head(status, body, added, close=self.close)
            self._client.send(head if call.plan.method == "HEAD" else head + body)
        call.status = status
        self._finish(end, Failure("upstream" if source == "upstream" else "client" if status < 500 else "proxy", reason, message))

    def _added(self) -> bytes:
        call = self.call
        added = _ADDED % (call.request_id.encode(), call.proxy_ms)
        return added + _IGNORED % call.plan.ignored if call.plan.ignored else added

    def _head(self, head: Head) -> bytes:
        if head.interim:
            # 100 answers an `Expect` that was not sent on; an HTTP/1.0 client knows no interim answers.
            skipped = head.status == 100 or self.call.plan.http10
            return b"" if skipped else head.status_line + head.passing + b"\r\n"
        self.head = head
        self.close = self.close or head.framing is Framing.CLOSE
        self.call.answered(head.status, head.fields)
        passing = response_fields(head.fields, unframed=True) if self._unframed else head.passing
        return b"".join((head.status_line, passing, self._added(), _CLOSE if self.close else b"", b"\r\n"))

    @property
    def _unframed(self) -> bool:
        return self.call.plan.http10 and self.head is not None and self.head.framing is Framing.CHUNKED

    def _end_of_answer(self) -> None:
        self._whole = True
        self.connection = None
        if self._client is None and self._seen_when_left == self.call.response.seen:
            self._finish("complete")
        elif self._client is None:
            self._finish("client_disconnected", Failure("client", "client_disconnected", "the client left; the answer was read to its end"))
        elif not self._client.unsent():
            self._finish("complete")

    def _finish(self, end: End, failure: Failure | None = None) -> None:
        if self.over:
            return
        self.connection = None
        if self._drain is not None:
            self._drain.cancel()
        self.call.end(end, failure)
        self._owner.done(self)
        if self._client is not None:
            self._client.answered(close=self.close)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
