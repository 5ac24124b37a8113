"""The client's connection: aiohttp's own connection class, with the answer's bytes written straight to its socket.

aiohttp keeps what it is good at: the llhttp parser, pipelining, shutdown, bodies that are still on their way.
A plain request that is all there is served from here, without the task and the objects of aiohttp's way; one
whose head was seen before, without parsing it again. What is private in aiohttp is touched in this module
alone; tests/proxy/test_client.py fails by name when aiohttp changes it.
"""

import asyncio
import contextlib
from typing import Any, Protocol

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from clearpane.contract.identifiers import new_request_id
from proxy import metrics
from proxy.answered import Relayed
from proxy.answers import refusal
from proxy.heads import Span, is_plain, may_be_head, span_of
from proxy.plan import Message, Plan, Plans
from proxy.relay import Relay
from proxy.transport import READ, reset_on_close
from proxy.tunnel import Tunnel
from proxy.uptake import Uptake

# A larger request is sent on as it comes; a smaller one is waited for, but not for long.
WHOLE_BYTES_MAX = 64 << 10
WHOLE_WAIT_S = 0.05
# A head that comes in more pieces is left to aiohttp's parser, which reads each byte once.
HEAD_READS_MAX = 8
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_UNREADABLE = "the request is not HTTP/1.1 that can be read in one way only (RFC 9112)"
_HEALTH = (b"GET /healthz", b"GET /readyz", b"HEAD /healthz", b"HEAD /readyz")


def message_of(request: web.BaseRequest) -> Message:
    return _message(request._message)  # noqa: SLF001 - see the head of this module


def _message(raw: RawRequestMessage) -> Message:
    version = (raw.version.major, raw.version.minor)
    return Message(raw.method, raw.path, version, raw.raw_headers, bool(raw.chunked), bool(raw.should_close), bool(raw.upgrade))


class Owner(Protocol):
    """Who serves the connections: the server."""

    drain_s: float
    head_bytes_max: int
    plans: Plans

    def opened(self, connection: "ClientConnection") -> None: ...

    def closed(self, connection: "ClientConnection") -> None: ...

    def serve(self, connection: "ClientConnection", plan: Plan, length: int | None, body: bytes) -> None:
        """A request that is all there."""


class ClientConnection(RequestHandler, asyncio.BufferedProtocol):
    """One client. `relay` is the call in flight, if there is one. Implements proxy.relay.Client.

    Bytes that begin a request are `_held` until it is whole. `_rest` counts what is still to come of a request that
    went aiohttp's way and whose end is known; `_left_to_aiohttp`: nobody but its parser knows where we are.
    """

    __slots__ = (
        "_body", "_body_wait", "_head_bytes", "_held", "_left_to_aiohttp", "_new", "_owner", "_reads", "_rest", "_tail",
        "idle_since_s", "relay", "stuck", "tunnel", "uptake", "whole",
    )  # fmt: skip

    def __init__(self, owner: Owner, manager: "web.Server", **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._owner = owner
        self.relay: Relay | None = None
        self.tunnel: Tunnel | None = None  # the call in flight is a WebSocket, and aiohttp sees no more of this connection
        self.whole = False  # the call in flight came in one piece, past aiohttp
        self.stuck = False  # the socket takes no more for now
        self.uptake = Uptake()
        self.idle_since_s = 0.0  # since then there was nothing to do, or a part of a request has been here
        self._held = b""
        self._head_bytes = 0  # that aiohttp's parser has had of a head
        self._body: StreamReader | None = None  # of the newest request that it has seen
        self._rest = 0
        self._tail = b""  # of what aiohttp's parser has had
        self._reads = 0  # with the head still not all here
        self._body_wait: asyncio.TimerHandle | None = None
        self._left_to_aiohttp = False
        self._new = True

    # proxy.relay.Client

    def send(self, data: bytes) -> None:
        transport = self.transport
        if transport is not None and not transport.is_closing():  # uvloop raises for a transport that is closed
            self.uptake.written += len(data)
            transport.write(data)

    def unsent(self) -> bool:
        transport = self.transport
        if transport is None or not transport.get_write_buffer_size():
            return False
        transport.set_write_buffer_limits(high=0, low=0)  # tells pause_writing now, resume_writing when all is out
        return True

    def break_off(self, *, reset: bool) -> None:
        """What was written still goes out; then the client sees the end of the connection, or a reset."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if reset:
            reset_on_close(transport)
        transport.close()

    def answered(self, *, close: bool) -> None:
        if not self.whole:  # aiohttp goes on by itself
            return
        self.relay, self.whole = None, False
        self.idle_since_s = self._loop.time()
        if close:
            self.close_idle()
        elif self._held:
            self._loop.call_soon(self._take_held)

    def abort(self) -> None:
        """At once, whatever was not sent yet."""
        if self.transport is not None:
            self.transport.abort()

    # proxy.tunnel.TwoWayClient; pausing and resuming is aiohttp's own, which leaves its parser out of it after an upgrade

    def switch(self, tunnel: Tunnel) -> bytes:
        self.tunnel = tunnel
        early, self._message_tail = self._message_tail, b""
        if self._buffer_paused:
            self._resume_reading_for_buffer()
        return early

    def end(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            with contextlib.suppress(OSError):  # it was reset meanwhile, which connection_lost tells
                self.transport.write_eof()

    # The server

    @property
    def begun(self) -> bool:
        """A part of a request has come, and no call yet."""
        return bool(self._held) or (self._left_to_aiohttp and self._head_bytes > 0)

    @property
    def at_rest(self) -> bool:
        """No call, no part of a request, and aiohttp's task has none either: it waits for one, or is over."""
        waits = self._waiter is not None and not self._waiter.done()
        return self.relay is None and not self.begun and (waits or self._task_handler is None)

    @property
    def ends_without_trailers(self) -> bool:
        """Whether the last bytes were the end of a chunked request, and a line of its own said so. Told by the bytes alone."""
        request = self._current_request
        return self._tail == _LAST_CHUNK and not self._messages and (request is None or request.content.is_eof())

    def close_idle(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def refuse_large_head(self) -> None:
        self.refuse(431, "request_header", "the head of the request is over header_bytes_max, headers_max or head_bytes_max")

    def refuse(self, status: int, reason: str, text: str) -> None:
        """Of a request that is no HTTP, or never came: there is no call to record, only an answer and a count."""
        metrics.UNREADABLE.inc()
        self.send(refusal(status, reason, text, request_id=new_request_id()))
        self.close_idle()

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.idle_since_s = self._loop.time()
        self._owner.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._owner.closed(self)
        self._held = b""
        self.tunnel = None
        if self._body_wait is not None:
            self._body_wait.cancel()
        relay, self.relay = self.relay, None
        if relay is not None:
            relay.client_lost(drain_s=self._owner.drain_s, stuck=self.stuck)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stuck = True
        if self.relay is not None:
            self.relay.paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.stuck = False
        if self.transport is not None:
            self.transport.set_write_buffer_limits()
        self.idle_since_s = self._loop.time()
        if self.relay is not None:
            self.relay.flushed()
        elif self._held:
            self._loop.call_soon(self._take_held)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # asyncio's own says so, too
        """True keeps the connection: of a WebSocket the other way may still go on."""
        if self.tunnel is None:
            if self.relay is not None and self.transport is not None and self.transport.get_write_buffer_size():
                # Closing waits for what the client may never take, and connection_lost for that.
                self.relay.client_half_closed(drain_s=self._owner.drain_s)
            return super().eof_received()
        self.tunnel.client_ended()
        return True

    def get_buffer(self, sizehint: int) -> memoryview:
        """uvloop reads this way; our transport calls data_received."""
        return READ

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(READ[:nbytes]))

    def data_received(self, data: bytes) -> None:
        if self._left_to_aiohttp:
            (self._to_aiohttp if self.tunnel is None else self.tunnel.from_client)(data)
        elif self._rest:
            self._pass(data, self._rest)
        elif self.relay is None and self._waiter is not None and not self.stuck:
            self._new = False
            self._take(self._held + data if self._held else data)
        elif self.whole or self._new or (self.stuck and self.relay is None):
            self._hold(self._held + data)
            if self._new:  # uvloop may bring the first bytes before aiohttp's task has begun to wait for them
                self._new = False
                self._loop.call_soon(self._take_held)
        else:  # behind a request that aiohttp is still at
            self._leave(data)

    # Requests

    def _take_held(self) -> None:
        if self._held and self.relay is None and self.transport is not None and not self.stuck:
            self._new = False
            (self._take if self._waiter is not None else self._leave)(self._held)

    def _take(self, data: bytes) -> None:
        """Bytes that begin a request, with none in flight."""
        span = span_of(data)
        if span is None:
            self._await_head(data)
            return
        plan = self._owner.plans.known(span.key)
        if plan is None and (not is_plain(span.key) or data.startswith(_HEALTH)):
            self._leave(data)
        elif len(data) == span.size:
            self._release()
            self._serve(span, plan, data)
        elif len(data) > span.size:
            self._hold(data[span.size :])
            self._serve(span, plan, data[: span.size])
        elif span.size <= WHOLE_BYTES_MAX:
            self._hold(data)
            self._wait_for_body(span)
        else:
            self._pass(data, span.size)

    def _wait_for_body(self, span: Span) -> None:
        """SDKs write head and body apart, and the body is here a moment later; if it is not, it takes the ordinary way."""
        if self._body_wait is None:
            self._body_wait = self._loop.call_later(WHOLE_WAIT_S, self._wait_no_more, span)

    def _wait_no_more(self, span: Span) -> None:
        self._body_wait = None
        if self._held and self.relay is None and self.transport is not None:
            self._pass(self._held, span.size)

    def _await_head(self, data: bytes) -> None:
        """aiohttp's parser has the bounds of a head, and the words for what is wrong with one."""
        self._reads += 1
        if len(data) > self._owner.head_bytes_max:
            self.refuse_large_head()
        elif self._reads > HEAD_READS_MAX or len(data) > self.max_field_size or not may_be_head(data):
            self._leave(data)
        else:
            self._hold(data)

    def _serve(self, span: Span, plan: Plan | None, data: bytes) -> None:
        if plan is None and (plan := self._parse(span, data)) is None:
            return
        if self._body_wait is not None:
            self._body_wait.cancel()
            self._body_wait = None
        self._reads = 0
        self.whole = True
        self._owner.serve(self, plan, span.length, data[span.head :])

    def _parse(self, span: Span, data: bytes) -> Plan | None:
        """None when the parser does not see one whole request here: it was told so."""
        assert self._parser is not None
        if span.head > self._owner.head_bytes_max:
            self.refuse_large_head()
            return None
        try:
            messages, upgraded, tail = self._parser.feed_data(data)
        except LineTooLong:
            self.refuse_large_head()
            return None
        except HttpProcessingError:
            messages, upgraded, tail = [], False, b""
        if len(messages) != 1 or upgraded or tail or not messages[0][1].is_eof():
            self.refuse(400, "request_malformed", _UNREADABLE)
            return None
        self._parser.message_consumed()
        plan = self._owner.plans.make(_message(messages[0][0]))
        self._owner.plans.keep(span.key, plan)
        return plan

    def _pass(self, data: bytes, rest: int) -> None:
        """To aiohttp, a part of a request of which `rest` bytes are still to come."""
        self._rest = max(rest - len(data), 0)
        self._release()
        super().data_received(data[:rest])
        if len(data) > rest:
            self._leave(data[rest:])

    def _leave(self, data: bytes) -> None:
        self._left_to_aiohttp = True
        self._release()
        self._to_aiohttp(data)

    def _to_aiohttp(self, data: bytes) -> None:
        """Its parser bounds the lines of a head, not all of it; and it tells of a broken body only behind the call."""
        if self._in_head:
            self.idle_since_s = self.idle_since_s if self._head_bytes else self._loop.time()
            end = data.find(b"\r\n\r\n")
            self._head_bytes += len(data) if end < 0 else end
            if self._head_bytes > self._owner.head_bytes_max:
                self.refuse_large_head()
                return
        self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
        before = len(self._messages)
        super().data_received(data)
        if len(self._messages) > before:
            self._body, self._head_bytes = self._messages[-1][1], 0
        request = self._current_request
        if request is not None and self._messages and isinstance(self._messages[-1][0], _ErrInfo) and not request.content.is_eof():
            request.content.set_exception(web.RequestPayloadError("the body's framing is broken"))

    @property
    def _in_head(self) -> bool:
        """Not while a request waits for aiohttp's task, nor while a body that nobody wanted is read to its end."""
        return self.relay is None and not self._messages and (self._body is None or self._body.is_eof())

    def _hold(self, data: bytes) -> None:
        """Requests behind the one in flight wait in the socket when they are many."""
        if not self._held:
            self.idle_since_s = self._loop.time()
        self._held = data
        full = len(data) > max(WHOLE_BYTES_MAX, self.max_field_size)  # more than one request can be
        if full != self._buffer_paused:
            (self._pause_reading_for_buffer if full else self._resume_reading_for_buffer)()

    def _release(self) -> None:
        if self._held:
            self._hold(b"")

    # aiohttp

    def _process_keepalive(self) -> None:
        """The server closes what is idle: it alone knows of the calls that aiohttp does not see."""
        self._keepalive_handle = None

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if isinstance(exc, LineTooLong):
            self.refuse_large_head()
        else:
            self.refuse(400, "request_malformed", _UNREADABLE)
        return Relayed(keep_alive=False).as_response()


class ClientServer(web.Server):
    """aiohttp's server, making our connections."""

    def __init__(self, owner: Owner, handler: Any, **settings: Any) -> None:
        super().__init__(handler, **settings)
        self._owner = owner

    def __call__(self) -> RequestHandler:
        return ClientConnection(self._owner, self, loop=self._loop, **self._kwargs)
