"""One call's bytes on their way back: from the upstream's connection to the client's, untouched and at once.

Rules:
1. Bytes go to the client before anything is written down about them.
2. Backpressure both ways: while the client's socket is full the upstream is not read.
3. Once the head is out, an upstream that breaks leaves a broken body, never a clean end.
4. Whatever happens first ends the call; what comes later changes nothing.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from clearpane.contract.controls import ID_HEADER, IGNORED_HEADER, TIMING_HEADER
from clearpane.contract.envelope import End
from proxy.answers import REASON_HEADER, answer_head, error_body
from proxy.call import Call, Failure
from proxy.headers import response_head
from proxy.upstream.answer import Framing, Head
from proxy.upstream.connection import Connection
from proxy.upstream.faults import UpstreamFault
from proxy.upstream.parser import Event

_ID, _IGNORED, _TIMING = ID_HEADER.encode(), IGNORED_HEADER.encode(), TIMING_HEADER.encode()
# Long lists of ignored headers are cut: an answer's head should stay small.
_IGNORED_BYTES_MAX = 1024
# How long the upstream is read on when the client has left: the end of the framing may be all that is missing.
LAST_BYTES_S = 0.2


class Client(Protocol):
    """The client's connection, as a relay needs it."""

    def send(self, data: bytes) -> None: ...

    def unsent(self) -> bool: ...  # asks to be told by Relay.flushed when there is nothing left

    def break_off(self, *, reset: bool) -> None: ...


class Relay:
    """A sink for the upstream, a writer for the client. `done` is set when nothing more will be written."""

    def __init__(
        self, call: Call, client: Client, *, http10: bool, close: bool, ignored: list[str], on_done: Callable[["Relay"], None]
    ) -> None:
        self.call = call
        self.connection: Connection | None = None
        self.close = close or http10  # the client's connection ends with this answer
        self.done = asyncio.get_running_loop().create_future()
        self.head: Head | None = None
        self._client: Client | None = client
        self._http10 = http10
        self._ignored = ignored
        self._on_done = on_done
        self._drain: asyncio.TimerHandle | None = None
        self._seen_when_left: int | None = None  # body bytes that had gone to the client when it left
        self._whole = False  # the upstream's answer is complete; the client's socket may still be taking it

    @property
    def over(self) -> bool:
        return self.call.ended

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
            else:
                out += event.payload if self._unframed else (event.raw,)
                self.call.body(event.payload)
        if self._client is not None and out:
            self._client.send(b"".join(out) if len(out) != 1 else out[0])
        if ended:
            self._end_of_answer()
        elif first:
            self.call.started()

    def on_fault(self, fault: UpstreamFault) -> None:
        failure = Failure("upstream", fault.reason, str(fault))
        if self.head is None:
            self.refuse(fault.status, fault.reason, str(fault), end=_as_end(fault), source="upstream")
            return
        self._break_off()
        self._finish(_as_end(fault), failure)

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
        anthropic = self.call.provider == "anthropic" or self.call.operation in {"messages", "count_tokens"}
        body = error_body(status, reason, message, request_id=self.call.request_id, anthropic=anthropic)
        if self._client is not None:
            head = answer_head(status, body, [*self._added(), (REASON_HEADER, reason.encode())], close=self.close)
            self._client.send(head + body)
        self.call.facts["response"]["status"] = status
        self.call.facts["response"]["streamed"] = False
        self._finish(end, Failure("upstream" if source == "upstream" else "client" if status < 500 else "proxy", reason, message))

    def _added(self) -> list[tuple[bytes, bytes]]:
        added = [(_ID, self.call.request_id.encode()), (_TIMING, b"clearpane;dur=%.3f" % self.call.proxy_ms)]
        if self._ignored:
            added.append((_IGNORED, ", ".join(self._ignored).encode()[:_IGNORED_BYTES_MAX]))
        return added

    def _head(self, head: Head) -> bytes:
        if head.interim:
            # 100 answers an `Expect` that was not sent on; an HTTP/1.0 client knows no interim answers.
            skipped = head.status == 100 or self._http10
            return b"" if skipped else response_head(head.status, head.reason, head.headers, (), close=False)
        self.head = head
        self.close = self.close or head.framing is Framing.CLOSE
        self.call.answered(head.status, head.headers)
        return response_head(head.status, head.reason, head.headers, self._added(), close=self.close, unframed=self._unframed)

    @property
    def _unframed(self) -> bool:
        return self._http10 and self.head is not None and self.head.framing is Framing.CHUNKED

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
        self._on_done(self)
        if not self.done.done():
            self.done.set_result(None)


def _as_end(fault: UpstreamFault) -> End:
    return "timeout" if fault.end == "timeout" else "upstream_error"
