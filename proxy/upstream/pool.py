"""Connections to the upstreams: idle ones kept for a while, new ones made with a deadline.

A pooled connection is looked at before it is used (has the upstream closed it meanwhile?), and kept for
less time than upstreams keep theirs, so a request is hardly ever written onto a dying connection. If it
happens all the same, the caller gets the error: a request that may have been seen is never sent again.
"""

import asyncio
import errno
import socket
import ssl
from collections import deque
from dataclasses import dataclass

import aiohappyeyeballs

from proxy.upstream.connection import Bulk, Connection
from proxy.upstream.faults import ConnectFailed, ConnectTimeout, OutOfFiles, ReadTimeout, Silent
from proxy.upstream.guard import is_forbidden
from proxy.upstream.origin import Origin

# Names are looked up again after this time, as resolvers and load balancers expect.
ADDRESSES_KEPT_S = 30.0
# RFC 8305 section 5 recommends 250 ms before the next address is tried beside the first.
NEXT_ADDRESS_DELAY_S = 0.25
SWEEP_EVERY_S = 1.0

_Addresses = list[tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolBounds:
    connect_timeout_s: float
    read_timeout_s: float
    idle_s: float
    idle_max: int


class Pool:
    """All connections of one worker. `start` and `stop` frame its life; nothing is shared between workers."""

    def __init__(self, bounds: PoolBounds, tls: ssl.SSLContext | None = None, bulk: Bulk | None = None) -> None:
        self._bounds = bounds
        self._bulk = bulk
        self._tls = tls or _verifying_context()
        self._idle: dict[Origin, deque[Connection]] = {}
        self._homes: dict[Origin, _OriginHome] = {}
        self._open: set[Connection] = set()
        self._addresses: dict[Origin, tuple[float, _Addresses]] = {}
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def start(self) -> None:
        self._sweeper = asyncio.create_task(self._sweep_forever(), name="upstream pool sweep")

    async def stop(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        for connection in list(self._open):
            connection.close()

    def idle(self, origin: Origin) -> Connection | None:
        """A pooled connection that is still good, the one used last first; None: make a new one."""
        kept = self._idle.get(origin)
        while kept:
            connection = kept.pop()
            if not connection.stale:
                return connection
            connection.close()
        return None

    async def connect(self, origin: Origin) -> Connection:
        """A new connection. Raises ConnectFailed, ConnectTimeout or OutOfFiles; nothing of the request was sent then."""
        try:
            async with asyncio.timeout(self._bounds.connect_timeout_s):
                return await self._connect(origin)
        except TimeoutError:
            raise ConnectTimeout(
                f"no connection to {origin.host}:{origin.port} within {self._bounds.connect_timeout_s:g} s (connect_timeout_s)"
            ) from None
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", None) or error.reason or "handshake failed"
            raise ConnectFailed(f"TLS with {origin.host}:{origin.port}: {reason}") from None
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise OutOfFiles("the proxy has no file descriptor left for another connection; raise its limit (ulimit -n)") from None
            self._addresses.pop(origin, None)
            raise ConnectFailed(f"{origin.host}:{origin.port}: {error.strerror or type(error).__name__}") from None

    async def _connect(self, origin: Origin) -> Connection:
        loop = asyncio.get_running_loop()
        addresses = await self._resolve(origin)
        sock = await aiohappyeyeballs.start_connection(list(addresses), happy_eyeballs_delay=NEXT_ADDRESS_DELAY_S, interleave=1, loop=loop)
        home = self._homes.setdefault(origin, _OriginHome(self, origin))
        tls = self._tls if origin.scheme == "https" else None
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(home, loop, self._bulk), sock=sock, ssl=tls, server_hostname=origin.host if tls else None
            )
        except BaseException:
            sock.close()
            raise
        self._open.add(connection)
        return connection

    async def _resolve(self, origin: Origin) -> _Addresses:
        loop = asyncio.get_running_loop()
        kept = self._addresses.get(origin)
        if kept is not None and loop.time() - kept[0] < ADDRESSES_KEPT_S:
            return kept[1]
        found: _Addresses = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)  # type: ignore[assignment]
        found = [address for address in found if not is_forbidden(str(address[4][0]))]
        if not found:
            raise ConnectFailed(
                f"{origin.host} is a link-local, multicast or metadata address, or resolves to one: no upstream may be there"
            )
        self._addresses[origin] = (loop.time(), found)
        return found

    def put(self, origin: Origin, connection: Connection) -> None:
        kept = self._idle.setdefault(origin, deque())
        if len(kept) >= self._bounds.idle_max:
            connection.close()
        else:
            kept.append(connection)

    def gone(self, origin: Origin, connection: Connection) -> None:
        self._open.discard(connection)
        kept = self._idle.get(origin)
        if kept and connection in kept:
            kept.remove(connection)

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            self.sweep(asyncio.get_running_loop().time())

    def sweep(self, now_s: float) -> None:
        """Closes idle connections that are too old, ends calls whose upstream is silent for too long."""
        idle = {connection for kept in self._idle.values() for connection in kept}
        for connection in list(self._open):
            silent_s = now_s - connection.last_activity_s
            if connection in idle:
                if silent_s >= self._bounds.idle_s:
                    connection.close()
            elif not connection.paused and silent_s > (connection.silence_s_max or self._bounds.read_timeout_s):
                connection.fail(self._silent(connection))

    def _silent(self, connection: Connection) -> ReadTimeout:
        if connection.silence_s_max is not None:
            return Silent(f"the WebSocket was silent for {connection.silence_s_max:g} s (websocket_idle_s)")
        return ReadTimeout(f"the upstream was silent for {self._bounds.read_timeout_s:g} s (read_timeout_s)")


class _OriginHome:
    """The pool, as the connections of one origin see it."""

    def __init__(self, pool: Pool, origin: Origin) -> None:
        self._pool, self._origin = pool, origin

    def put(self, connection: Connection) -> None:
        self._pool.put(self._origin, connection)

    def gone(self, connection: Connection) -> None:
        self._pool.gone(self._origin, connection)


def _verifying_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
