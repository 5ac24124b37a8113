"""The proxy's port: admission, limits, and the way of a request to its upstream. Only this module and
proxy/client.py know aiohttp's server."""

import asyncio
import logging
import re
from dataclasses import dataclass
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_request import BaseRequest

from proxy.answers import answer_head
from proxy.call import Call, Failure, Recording
from proxy.client import ClientConnection, ClientServer, Relayed, is_chunked, wants_close, wants_upgrade
from proxy.control import read_controls
from proxy.headers import Headers, Refused, first, request_head
from proxy.relay import Relay
from proxy.routes import NoRoute, Route, Routes
from proxy.tally import Tally
from proxy.trace import read_trace
from proxy.upstream.connection import Connection
from proxy.upstream.faults import UpstreamFault
from proxy.upstream.parser import Parser
from proxy.upstream.pool import Pool

log = logging.getLogger(__name__)

_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# RFC 3986 authority without user information; a Host that is none of this is refused.
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_SWEEP_EVERY_S = 1.0
_HEALTH_PATHS = frozenset({"/healthz", "/readyz"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the client's side; the names are those of the settings."""

    request_bytes_max: int
    header_bytes_max: int
    headers_max: int
    connections_max: int
    keepalive_timeout_s: float
    request_timeout_s: float
    write_timeout_s: float
    drain_s: float
    add_traceparent: bool
    add_request_id: bool


class BadRequest(Exception):
    """A request that is refused before any upstream sees it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class ProxyServer:
    """Serves calls until it is drained. One per worker."""

    def __init__(self, routes: Routes, pool: Pool, recording: Recording, limits: Limits) -> None:
        self.drain_s = limits.drain_s
        self.draining = False
        self._routes, self._pool, self._recording, self._limits = routes, pool, recording, limits
        self._connections: set[ClientConnection] = set()
        self._relays: set[Relay] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._tally = Tally()
        self.web_server = ClientServer(
            self,
            self._handle,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=limits.keepalive_timeout_s,
            max_line_size=limits.header_bytes_max,
            max_field_size=limits.header_bytes_max,
            max_headers=limits.headers_max,
        )

    # Life

    def start(self) -> None:
        self._pool.start()
        self._sweeper = asyncio.create_task(self._sweep_forever(), name="client sweep")

    async def drain(self, grace_s: float) -> int:
        """Lets open calls finish for so long, then ends them as `shutdown`. Returns how many were cut."""
        self.draining = True
        if self._relays:
            await asyncio.wait([relay.done for relay in self._relays], timeout=grace_s)
        cut = list(self._relays)
        for relay in cut:
            relay.give_up("shutdown", Failure("proxy", "shutdown", f"the proxy stopped and its grace time of {grace_s:g} s was over"))
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await self._pool.stop()
        self._tally.tell(0)
        return len(cut)

    def opened(self, connection: ClientConnection) -> None:
        self._connections.add(connection)

    def closed(self, connection: ClientConnection) -> None:
        self._connections.discard(connection)

    # A request

    async def _handle(self, request: BaseRequest) -> web.StreamResponse:
        client = cast("ClientConnection", request.protocol)
        path = request.raw_path.partition("?")[0]
        if path in _HEALTH_PATHS:
            return self._health(path, request, client)
        relay = self._admit(request, client)
        client.relay = relay
        try:
            await self._forward(request, client, relay)
        except BadRequest as error:
            relay.refuse(error.status, error.reason, str(error), close=True)
        except UpstreamFault as fault:
            relay.on_fault(fault)
        except asyncio.CancelledError:
            relay.give_up("shutdown", Failure("proxy", "shutdown", "the proxy stopped"))
            raise
        except Exception as defect:
            log.exception("a defect of the proxy ended call %s", relay.call.request_id)
            self._defect(relay, f"{type(defect).__name__} in the proxy; please report it with this id")
        finally:
            client.relay = None
        return Relayed(keep_alive=not relay.close and not self.draining).as_response()

    def _defect(self, relay: Relay, message: str) -> None:
        if relay.connection is not None:
            relay.connection.close()
        if relay.head is None:
            relay.refuse(500, "internal", message, close=True)
        else:
            relay.give_up("rejected", Failure("proxy", "internal", message))

    def _admit(self, request: BaseRequest, client: ClientConnection) -> Relay:
        headers = request.raw_headers
        controls = read_controls(headers)
        call = Call(self._recording, method=request.method, target=request.raw_path, headers=headers, controls=controls)
        relay = Relay(
            call,
            client,
            http10=request.version < (1, 1),
            close=wants_close(request) or self.draining,
            ignored=controls.ignored,
            on_done=self._done,
        )
        self._relays.add(relay)
        self._tally.admitted()
        return relay

    async def _forward(self, request: BaseRequest, client: ClientConnection, relay: Relay) -> None:
        headers = request.raw_headers
        call = relay.call
        trace = read_trace(
            headers, call.request_id, add_traceparent=self._limits.add_traceparent, add_request_id=self._limits.add_request_id
        )
        try:
            route = self._routes.find(request.raw_path)
        except NoRoute as error:
            call.admit(trace, None)
            raise BadRequest(404, "no_upstream", str(error)) from None
        call.admit(trace, route)
        self._check(request, headers)
        try:
            head = request_head(
                request.method, _bytes_of(route.target), route.upstream.host, headers, self._framing(request, headers), trace.added
            )
        except Refused as error:
            raise BadRequest(400, "request_header", str(error)) from None
        body = request.content.read_nowait() if request.content.is_eof() else None
        if body:
            call.request.add(body)
        connection = await self._connection(route, call)
        if relay.over:  # the client left while we were connecting
            connection.close()
            return
        await self._exchange(request, client, relay, connection, head, body)

    async def _connection(self, route: Route, call: Call) -> Connection:
        connection = self._pool.idle(route.upstream.origin)
        if connection is None:
            before_ms = call.now_ms()
            self._tally.connected(route.upstream.name)
            connection = await self._pool.connect(route.upstream.origin)
            call.connect_s = (call.now_ms() - before_ms) / 1000
        return connection

    async def _exchange(
        self, request: BaseRequest, client: ClientConnection, relay: Relay, connection: Connection, head: bytes, body: bytes | None
    ) -> None:
        """`body` is the whole body if it is here already, else None."""
        parser = Parser(request.method, head_bytes_max=self._limits.header_bytes_max * 2, headers_max=self._limits.headers_max)
        connection.begin(relay, parser)
        relay.connection = connection
        relay.call.sending()
        if body is not None:
            connection.write(head + _framed(request, body))
            connection.request_sent()
            await relay.done
            return
        connection.write(head)
        if (first(request.raw_headers, b"expect") or b"").lower() == b"100-continue":
            client.send(_CONTINUE)
        upload = asyncio.create_task(self._upload(request, relay, connection), name="upload")
        try:
            await relay.done
        finally:
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)

    async def _upload(self, request: BaseRequest, relay: Relay, connection: Connection) -> None:
        """Sends the body on as it comes. Its own failures end the call; an answer that comes early is let through."""
        try:
            while piece := await asyncio.wait_for(request.content.readany(), self._limits.request_timeout_s):
                relay.call.request.add(piece)
                self._check_size(relay.call.request.seen)
                connection.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked(request) else piece)
                await connection.drain()
        except TimeoutError:
            self._stop_upload(
                relay, connection, 408, "request_timeout", f"the client sent nothing for {self._limits.request_timeout_s:g} s"
            )
        except BadRequest as error:
            self._stop_upload(relay, connection, error.status, error.reason, str(error))
        except (HttpProcessingError, web.RequestPayloadError):
            self._stop_upload(relay, connection, 400, "request_malformed", "the request's body is not framed as RFC 9112 has it")
        except ConnectionError:
            relay.client_lost(drain_s=0, stuck=True)
        else:
            if is_chunked(request):
                connection.write(b"0\r\n\r\n")
            connection.request_sent()

    def _stop_upload(self, relay: Relay, connection: Connection, status: int, reason: str, message: str) -> None:
        """The upstream has a part of the request and must not take it for the whole."""
        connection.close()
        if relay.head is None:
            relay.refuse(status, reason, message, end="client_error", close=True)
        else:
            relay.give_up("client_error", Failure("client", reason, message))

    # Decisions

    def _check(self, request: BaseRequest, headers: Headers) -> None:
        """What aiohttp's parser lets through and RFC 9112 does not, and our own limits."""
        if len(self._connections) > self._limits.connections_max:
            raise BadRequest(
                503, "too_many_connections", f"more than {self._limits.connections_max} connections (connections_max); try again"
            )
        if request.version not in {(1, 0), (1, 1)}:
            raise BadRequest(400, "request_malformed", "the proxy speaks HTTP/1.1 and HTTP/1.0")
        hosts = [value for name, value in headers if name.lower() == b"host"]
        if any(_HOST.fullmatch(host.strip()) is None for host in hosts) or (not hosts and request.version == (1, 1)):
            raise BadRequest(400, "request_malformed", "the Host header is missing or malformed")
        codings = [value.strip().lower() for name, value in headers if name.lower() == b"transfer-encoding"]
        if codings and (codings != [b"chunked"] or request.version == (1, 0)):
            raise BadRequest(400, "request_malformed", "the only transfer-encoding that can be forwarded is `chunked`, with HTTP/1.1")
        if wants_upgrade(request):
            raise BadRequest(501, "upgrade_unsupported", "connections cannot be upgraded (WebSocket); use the HTTP API of the provider")
        length = first(headers, b"content-length")
        if length is not None:
            self._check_size(int(length))

    def _check_size(self, body_bytes: int) -> None:
        if body_bytes > (most := self._limits.request_bytes_max):
            raise BadRequest(413, "request_too_large", f"the request's body is over {most} bytes (request_bytes_max)")

    def _framing(self, request: BaseRequest, headers: Headers) -> bytes:
        if is_chunked(request):
            return _CHUNKED
        length = first(headers, b"content-length")
        return b"" if length is None else b"Content-Length: %d\r\n" % int(length)

    def _health(self, path: str, request: BaseRequest, client: ClientConnection) -> web.StreamResponse:
        fine = path == "/healthz" or not self.draining
        body = b'{"status": "ok"}' if fine else b'{"status": "draining"}'
        close = wants_close(request) or not fine
        client.send(answer_head(200 if fine else 503, body, [], close=close) + (b"" if request.method == "HEAD" else body))
        return Relayed(keep_alive=not close).as_response()

    def _done(self, relay: Relay) -> None:
        self._relays.discard(relay)
        self._tally.ended(relay.call)

    async def _sweep_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_EVERY_S)
            self._tally.tell(len(self._connections))
            for connection in list(self._connections):
                if (
                    connection.relay is not None
                    and connection.stuck
                    and loop.time() - connection.last_progress_s > self._limits.write_timeout_s
                ):
                    text = f"the client took no byte of its answer for {self._limits.write_timeout_s:g} s (write_timeout_s)"
                    connection.relay.give_up("client_disconnected", Failure("client", "write_timeout", text))
                    connection.abort()


def _framed(request: BaseRequest, body: bytes) -> bytes:
    if not is_chunked(request):
        return body
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"


def _bytes_of(target: str) -> bytes:
    """The target as it came: aiohttp decodes it with surrogates for what is no UTF-8."""
    return target.encode("utf-8", "surrogateescape")
