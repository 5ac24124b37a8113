"""The proxy's port: admission, limits, and the way of a request to its upstream.

A request comes whole from proxy/client.py (`serve`), or through aiohttp while its body is still on its way
(`_handle`); both make the same call by the same plan.
"""

import asyncio
import contextlib
import logging
from typing import cast

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_request import BaseRequest

from proxy.answered import Relayed
from proxy.answers import answer_head
from proxy.call import Call, Failure, Recording
from proxy.client import ClientConnection, ClientServer, message_of
from proxy.headers import expects_continue
from proxy.limits import Limits
from proxy.plan import BadRequest, Plan, Plans
from proxy.relay import Relay
from proxy.sweep import Sweep
from proxy.tally import Tally
from proxy.tunnel import Tunnel
from proxy.upstream.connection import Connection
from proxy.upstream.faults import UpstreamFault
from proxy.upstream.parser import Parser
from proxy.upstream.pool import Pool
from proxy.usage_relay import UsageRelay

log = logging.getLogger(__name__)

_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# How often a stop looks whether all connections are at rest.
_REST_EVERY_S = 0.02
# Behind a refusal the rest of the body is read for so long, so that the client reads the refusal before a reset.
_LINGER_S = 1.0
_HEALTH_PATHS = frozenset({"/healthz", "/readyz"})


class ProxyServer:
    """Serves calls until it is drained. One per worker."""

    def __init__(self, plans: Plans, pool: Pool, recording: Recording, limits: Limits) -> None:
        self.drain_s, self.head_bytes_max, self.websocket_idle_s = limits.drain_s, limits.head_bytes_max, limits.websocket_idle_s
        self.plans = plans
        self.draining = False
        self._pool, self._recording, self._limits = pool, recording, limits
        self._connections: set[ClientConnection] = set()
        self._relays: dict[Relay, ClientConnection] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._tally = Tally()
        self._sweep = Sweep(limits, self._connections, self._relays, self._tally)
        self.web_server = ClientServer(
            self,
            self._handle,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=0,
            lingering_time=_LINGER_S,
            max_line_size=limits.header_bytes_max,
            max_field_size=limits.header_bytes_max,
            max_headers=limits.headers_max,
        )

    # Life

    def start(self) -> None:
        self._pool.start()
        self._sweep.start()

    async def drain(self, grace_s: float) -> int:
        """Lets open calls finish for so long, then ends them as `shutdown`. Returns how many were cut."""
        self.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self._relays or not all(connection.at_rest for connection in self._connections):  # noqa: ASYNC110  # aiohttp tells nobody
                    await asyncio.sleep(_REST_EVERY_S)
        # Closed in the turn in which all were seen at rest: no connection brings another call.
        for connection in self._connections:
            if connection.relay is None:
                connection.close_idle()
        cut = list(self._relays)
        for relay in cut:
            relay.give_up("shutdown", Failure("proxy", "shutdown", f"the proxy stopped and its grace time of {grace_s:g} s was over"))
        await self._sweep.stop()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        await self._pool.stop()
        self._tally.tell(0)
        return len(cut)

    def opened(self, connection: ClientConnection) -> None:
        self._connections.add(connection)

    def closed(self, connection: ClientConnection) -> None:
        self._connections.discard(connection)

    # A request that is all there

    def serve(self, connection: ClientConnection, plan: Plan, length: int | None, body: bytes) -> None:
        relay = self._admit(plan, connection, UsageRelay if plan.include_usage else Relay)
        connection.relay = relay
        try:
            self._check(plan, length)
            self._serve(relay, plan, length, body)
        except BadRequest as error:
            relay.refuse(error.status, error.reason, str(error), close=True)
        except Exception as defect:  # noqa: BLE001 - whatever it is, this call ends and says so
            self._defect(relay, defect)

    def _serve(self, relay: Relay, plan: Plan, length: int | None, body: bytes) -> None:
        assert plan.route is not None
        if body:
            relay.call.request.add(body)
            if isinstance(relay, UsageRelay):
                body = relay.ask(body)
                length = len(body)
        data = b"".join((self._head(relay.call, plan, length), body))
        upstream = self._pool.idle(plan.route.upstream.origin)
        if upstream is not None:
            self._send(relay, upstream, data)
            return
        task = asyncio.create_task(self._connect_and_send(relay, plan, data), name="connect")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect_and_send(self, relay: Relay, plan: Plan, data: bytes) -> None:
        try:
            upstream = await self._connect(relay.call, plan)
        except UpstreamFault as fault:
            relay.on_fault(fault)
        except Exception as defect:  # noqa: BLE001 - whatever it is, this call ends and says so
            self._defect(relay, defect)
        else:
            if relay.over:  # the client left while we were connecting
                upstream.close()
            else:
                self._send(relay, upstream, data)

    def _send(self, relay: Relay, upstream: Connection, data: bytes) -> None:
        self._begin(relay, upstream)
        upstream.write(data)
        upstream.request_sent()

    # A request whose body is still on its way

    async def _handle(self, request: BaseRequest) -> web.StreamResponse:
        client = cast("ClientConnection", request.protocol)
        if client.stuck:  # answers wait for it already
            with contextlib.suppress(ConnectionError):
                await request.writer.drain()
        path = request.raw_path.partition("?")[0]
        if path in _HEALTH_PATHS:
            return self._health(path, request, client)
        plan = self.plans.make(message_of(request))
        relay = self._admit(plan, client, Tunnel if plan.websocket else UsageRelay if plan.include_usage else Relay)
        client.relay = relay
        if client.transport is None:  # the client left before aiohttp came to its request
            relay.client_lost(drain_s=0, stuck=True)
        try:
            self._check(plan, plan.length)
            if not relay.over:
                await self._forward(request, client, relay)
        except BadRequest as error:
            relay.refuse(error.status, error.reason, str(error), close=True)
        except UpstreamFault as fault:
            relay.on_fault(fault)
        except asyncio.CancelledError:
            relay.give_up("shutdown", Failure("proxy", "shutdown", "the proxy stopped"))
            raise
        except Exception as defect:  # noqa: BLE001 - whatever it is, this call ends and says so
            self._defect(relay, defect)
        finally:
            client.relay = None
            client.idle_since_s = asyncio.get_running_loop().time()
        # aiohttp's parser would put the trailers of a chunked request before the next request's headers.
        close = relay.close or self.draining or (plan.chunked and not relay.ends_plainly)
        return Relayed(keep_alive=not close).as_response()

    async def _forward(self, request: BaseRequest, client: ClientConnection, relay: Relay) -> None:
        plan, begun = relay.call.plan, b""
        body = request.content.read_nowait() if request.content.is_eof() else None
        if body:
            relay.call.request.add(body)
        length = plan.length
        if isinstance(relay, UsageRelay):
            if body is None and relay.needs_whole:
                _continue(request, client)
                body, begun = await relay.gather(lambda: self._piece(request, relay.call))
            if relay.over:  # the client left, or spoilt its request, while that was on its way
                return
            if body:
                body = relay.ask(body)
                length = len(body)
        head = self._head(relay.call, plan, length)
        assert plan.route is not None
        # A WebSocket takes a connection for itself; and it is not asked for on one that the upstream may be closing.
        kept = None if plan.websocket else self._pool.idle(plan.route.upstream.origin)
        upstream = kept or await self._connect(relay.call, plan)
        if relay.over:  # the client left while we were connecting
            upstream.close()
        elif body is not None:
            relay.ends_plainly = client.ends_without_trailers
            relay.close = relay.close or (plan.chunked and not relay.ends_plainly)
            self._send(relay, upstream, head + (_chunked(body) if plan.chunked else body))
            if plan.websocket:
                upstream.may_switch()
            await relay.wait()
        else:
            await self._stream(request, client, relay, upstream, head, begun)

    async def _stream(
        self, request: BaseRequest, client: ClientConnection, relay: Relay, upstream: Connection, head: bytes, begun: bytes
    ) -> None:
        """`begun`: what of the body has come."""
        self._begin(relay, upstream)
        upstream.write(head)
        if not begun:
            _continue(request, client)
        upload = asyncio.create_task(self._upload(request, relay, upstream, begun), name="upload")
        try:
            await relay.wait()
        finally:
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)

    async def _piece(self, request: BaseRequest, call: Call) -> bytes:
        """What comes next of a body; empty at its end. Raises BadRequest, ConnectionError."""
        try:
            async with asyncio.timeout(self._limits.request_timeout_s):  # wait_for may swallow that the upload is cancelled (3.11)
                piece = await request.content.readany()
        except TimeoutError:
            raise BadRequest(408, "request_timeout", f"the client sent nothing for {self._limits.request_timeout_s:g} s") from None
        except (HttpProcessingError, web.RequestPayloadError):
            raise BadRequest(400, "request_malformed", "the request's body is not framed as RFC 9112 has it") from None
        if piece:
            call.request.add(piece)
            self._check_size(call.request.seen)
            self._check_rate(call)
        return piece

    async def _upload(self, request: BaseRequest, relay: Relay, upstream: Connection, begun: bytes) -> None:
        """Sends the body on as it comes. Its own failures end the call; an answer that comes early is let through."""
        call = relay.call
        chunked, length = call.plan.chunked, call.plan.length
        try:
            while piece := begun or await self._piece(request, call):
                begun = b""
                upstream.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                if call.request.seen == length:
                    upstream.request_sent()
                await upstream.drain()
        except BadRequest as error:
            self._stop_upload(relay, upstream, error.status, error.reason, str(error))
        except ConnectionError:
            relay.client_lost(drain_s=0, stuck=True)
        else:
            if chunked:
                relay.ends_plainly = cast("ClientConnection", request.protocol).ends_without_trailers
                upstream.write(b"0\r\n\r\n")
            upstream.request_sent()

    def _stop_upload(self, relay: Relay, upstream: Connection, status: int, reason: str, message: str) -> None:
        """The upstream has a part of the request and must not take it for the whole."""
        upstream.close()
        if relay.head is None:
            relay.refuse(status, reason, message, end="client_error", close=True)
        else:
            relay.give_up("client_error", Failure("client", reason, message))

    # What both ways share

    def _admit(self, plan: Plan, client: ClientConnection, kind: type[Relay] | type[Tunnel] | type[UsageRelay]) -> Relay:
        call = Call(self._recording, plan)
        relay = kind(call, client, self, close=plan.close or plan.http10 or self.draining)
        self._relays[relay] = client
        self._tally.admitted()
        call.admit(self.plans.trace(plan, call.request_id) if self.plans.adds_trace else None)
        return relay

    def _check(self, plan: Plan, length: int | None) -> None:
        if plan.refusal is not None:
            raise plan.refusal
        if self._sweep.too_many:
            raise BadRequest(
                503, "too_many_connections", f"more than {self._limits.connections_max} connections (connections_max); try again"
            )
        if length is not None:
            self._check_size(length)

    def _check_size(self, body_bytes: int) -> None:
        if body_bytes > (most := self._limits.request_bytes_max):
            raise BadRequest(413, "request_too_large", f"the request's body is over {most} bytes (request_bytes_max)")

    def _check_rate(self, call: Call) -> None:
        """Not before `request_timeout_s`: a slow beginning is no drip."""
        elapsed_s, least = call.now_ms() / 1000, self._limits.request_bytes_per_s_min
        if elapsed_s > self._limits.request_timeout_s and call.request.seen < least * elapsed_s:
            raise BadRequest(408, "request_timeout", f"the request's body came with less than {least} bytes/s (request_bytes_per_s_min)")

    def _head(self, call: Call, plan: Plan, length: int | None) -> bytes:
        framing = _CHUNKED if plan.chunked else b"" if length is None else b"Content-Length: %d\r\n" % length
        return b"".join((plan.head, call.added, framing, b"\r\n"))

    async def _connect(self, call: Call, plan: Plan) -> Connection:
        assert plan.route is not None
        before_ms = call.now_ms()
        self._tally.connected(plan.route.upstream.name)
        upstream = await self._pool.connect(plan.route.upstream.origin)
        call.connect_s = (call.now_ms() - before_ms) / 1000
        return upstream

    def _begin(self, relay: Relay, upstream: Connection) -> None:
        limits = self._limits
        upstream.begin(relay, Parser(relay.call.plan.method, head_bytes_max=limits.header_bytes_max * 2, headers_max=limits.headers_max))
        relay.connection = upstream
        relay.call.sending()

    def _defect(self, relay: Relay, defect: Exception) -> None:
        log.error("a defect of the proxy ended call %s", relay.call.request_id, exc_info=defect)
        message = f"{type(defect).__name__} in the proxy; please report it with this id"
        if relay.connection is not None:
            relay.connection.close()
        if relay.head is None:
            relay.refuse(500, "internal", message, close=True)
        else:
            relay.give_up("rejected", Failure("proxy", "internal", message))

    def _health(self, path: str, request: BaseRequest, client: ClientConnection) -> web.StreamResponse:
        fine = path == "/healthz" or not self.draining
        body = b'{"status": "ok"}' if fine else b'{"status": "draining"}'
        close = message_of(request).close or not fine
        client.send(answer_head(200 if fine else 503, body, close=close) + (b"" if request.method == "HEAD" else body))
        client.idle_since_s = asyncio.get_running_loop().time()
        return Relayed(keep_alive=not close).as_response()

    def done(self, relay: Relay) -> None:
        """Implements proxy.relay.Owner."""
        relay.close = relay.close or self.draining
        self._relays.pop(relay, None)
        self._tally.ended(relay.call)


def _continue(request: BaseRequest, client: ClientConnection) -> None:
    if request.version >= HttpVersion11 and expects_continue(request.raw_headers):  # HTTP/1.0 knows no interim answers
        client.send(_CONTINUE)


def _chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
