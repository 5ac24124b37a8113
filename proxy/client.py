"""The client's connection: aiohttp's own connection class, with the answer's bytes written straight to its socket.

aiohttp keeps what it is good at: the llhttp parser, keep-alive, pipelining, shutdown. What is private in it
is touched in this module alone; tests/proxy/test_client.py fails by name when aiohttp changes it.
"""

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any, Protocol, cast

from aiohttp import web
from aiohttp.http_parser import HttpRequestParser
from aiohttp.web_protocol import RequestHandler

from clearpane.contract.controls import ID_HEADER
from clearpane.contract.identifiers import new_request_id
from proxy import metrics
from proxy.answers import answer_head, error_body
from proxy.relay import Relay

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

_LINGER_OFF = struct.pack("ii", 1, 0)


class WeakParser(Exception):
    """aiohttp fell back to its Python parser, which is weaker against smuggling."""


def assert_c_parser() -> None:
    """Raises WeakParser."""
    if HttpRequestParser.__module__ != "aiohttp._http_parser":
        raise WeakParser("aiohttp's compiled parser is missing: install a wheel of aiohttp, without AIOHTTP_NO_EXTENSIONS")


def is_chunked(request: "BaseRequest") -> bool:
    return bool(request._message.chunked)  # noqa: SLF001 - see the head of this module


def wants_close(request: "BaseRequest") -> bool:
    return bool(request._message.should_close)  # noqa: SLF001 - see the head of this module


def wants_upgrade(request: "BaseRequest") -> bool:
    return bool(request._message.upgrade)  # noqa: SLF001 - see the head of this module


class Relayed:
    """What a handler returns to aiohttp when its answer has been written: nothing is left to send."""

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, request: "BaseRequest") -> None:
        return None

    async def write_eof(self) -> None:
        return None

    def as_response(self) -> web.StreamResponse:
        """aiohttp asks for these three members only."""
        return cast("web.StreamResponse", self)


class Owner(Protocol):
    """Who wants to know of connections: the server."""

    drain_s: float

    def opened(self, connection: "ClientConnection") -> None: ...

    def closed(self, connection: "ClientConnection") -> None: ...


class ClientConnection(RequestHandler):
    """One client. `relay` is the call in flight, if there is one. Implements proxy.relay.Client."""

    __slots__ = ("_owner", "last_progress_s", "relay", "stuck")

    def __init__(self, owner: Owner, manager: "web.Server", **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._owner = owner
        self.relay: Relay | None = None
        self.stuck = False  # the socket takes no more for now
        self.last_progress_s = 0.0

    # proxy.relay.Client

    def send(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def unsent(self) -> bool:
        transport = self.transport
        if transport is None or not transport.get_write_buffer_size():
            return False
        transport.set_write_buffer_limits(high=0, low=0)  # tells pause_writing now, resume_writing when all is out
        return True

    def break_off(self, *, reset: bool) -> None:
        """What was written still goes out; then the client sees the end of the connection, or a reset."""
        transport = self.transport
        if transport is None:
            return
        if reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
        transport.close()

    def abort(self) -> None:
        """At once, whatever was not sent yet."""
        if self.transport is not None:
            self.transport.abort()

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._owner.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._owner.closed(self)
        relay, self.relay = self.relay, None
        if relay is not None:
            relay.client_lost(drain_s=self._owner.drain_s, stuck=self.stuck)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stuck = True
        self.last_progress_s = self._loop.time()
        if self.relay is not None:
            self.relay.paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.stuck = False
        if self.transport is not None:
            self.transport.set_write_buffer_limits()
        if self.relay is not None:
            self.relay.flushed()

    # aiohttp

    def handle_error(
        self, request: "BaseRequest", status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """A request that is no HTTP: there is no call to record, only an answer and a count."""
        metrics.UNREADABLE.inc()
        request_id = new_request_id()
        reason = "request_malformed"
        text = "the request is not HTTP/1.1 that can be read in one way only (RFC 9112), or its head is too large"
        body = error_body(400, reason, text, request_id=request_id, anthropic=False)
        self.send(
            answer_head(400, body, [(ID_HEADER.encode(), request_id.encode()), (b"Clearpane-Error", reason.encode())], close=True) + body
        )
        return Relayed(keep_alive=False).as_response()


class ClientServer(web.Server):
    """aiohttp's server, making our connections."""

    def __init__(self, owner: Owner, handler: Any, **settings: Any) -> None:
        super().__init__(handler, **settings)
        self._owner = owner

    def __call__(self) -> RequestHandler:
        return ClientConnection(self._owner, self, loop=self._loop, **self._kwargs)
