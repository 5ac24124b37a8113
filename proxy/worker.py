"""A worker: one process that serves calls on the inherited port. Started by the supervisor."""

import asyncio
import gc
import os
import socket
from collections.abc import Awaitable
from functools import lru_cache

from aiohttp import web

from clearpane.contract import secrets
from clearpane.runtime import child
from clearpane.runtime.handover import Handover
from clearpane.settings import Settings
from proxy.call import Recording
from proxy.capture import Budget
from proxy.client import WeakParser, assert_c_parser
from proxy.routes import Routes
from proxy.server import Limits, ProxyServer
from proxy.spool import SpoolThread
from proxy.spool_metrics import SpoolMetrics
from proxy.upstream.pool import Pool, PoolBounds

# Connections that wait to be accepted; the kernel cuts it to net.core.somaxconn.
BACKLOG = 4096
# Rungs of the stop ladder behind `grace_s`.
CLOSE_TIMEOUT_S = 2.0
SPOOL_TIMEOUT_S = 10.0
# Callers have a handful of keys; the bound is for those who rotate them.
_FINGERPRINTS_KEPT = 4096


async def work(handover: Handover, report: child.Report, stopped: Awaitable[None]) -> None:
    """Serves until stopped, then: no new connections, open calls finish, the spool is made durable."""
    settings = handover.settings
    listener = handover.socket("listen")
    assert listener is not None
    spool = SpoolThread(
        settings.data / "spool",
        bytes_max=settings.spool_bytes_max,
        segment_bytes=settings.spool_segment_bytes,
        queue_bytes_max=settings.spool_queue_bytes_max,
    )
    spool.start()
    server = build(settings, spool, handover.switches["pepper"])
    spool_metrics = SpoolMetrics(spool)
    spool_metrics.start()
    server.start()
    runner = web.ServerRunner(server.web_server, shutdown_timeout=CLOSE_TIMEOUT_S)
    await runner.setup()
    site = web.SockSite(runner, listener, backlog=BACKLOG)
    await site.start()
    gc.freeze()  # what lives as long as the process is not looked at in every full collection
    report({"event": "ready", "pid": os.getpid(), "spool": spool.spool_id})
    try:
        await stopped
    finally:
        await site.stop()
        cut = await server.drain(settings.grace_s)
        await runner.cleanup()
        await spool_metrics.stop()
        written = await asyncio.to_thread(spool.stop, SPOOL_TIMEOUT_S)
        report({"event": "stopped", "cut": cut, "spool_written": written})


def build(settings: Settings, spool: SpoolThread, pepper: str) -> ProxyServer:
    """The server with all that it needs; nothing is started."""

    @lru_cache(maxsize=_FINGERPRINTS_KEPT)
    def fingerprint(key: bytes) -> str:
        return secrets.fingerprint(key, pepper.encode())

    recording = Recording(
        spool=spool,
        budget=Budget(settings.capture_memory_bytes_max),
        capture_bytes_max=settings.capture_bytes_max,
        hostname=socket.gethostname(),
        fingerprint=fingerprint,
    )
    pool = Pool(
        PoolBounds(
            connect_timeout_s=settings.connect_timeout_s,
            read_timeout_s=settings.read_timeout_s,
            idle_s=settings.upstream_idle_s,
            idle_max=settings.upstream_idle_max,
        )
    )
    return ProxyServer(Routes(settings.default_upstream, settings.upstream), pool, recording, _limits(settings))


def _limits(settings: Settings) -> Limits:
    return Limits(
        request_bytes_max=settings.request_bytes_max,
        header_bytes_max=settings.header_bytes_max,
        headers_max=settings.headers_max,
        connections_max=settings.connections_max,
        keepalive_timeout_s=settings.keepalive_timeout_s,
        request_timeout_s=settings.request_timeout_s,
        write_timeout_s=settings.write_timeout_s,
        drain_s=settings.drain_s if settings.client_gone == "drain" else 0.0,
        add_traceparent=settings.add_traceparent,
        add_request_id=settings.add_request_id,
    )


async def _checked(handover: Handover, report: child.Report, stopped: Awaitable[None]) -> None:
    assert_c_parser()
    await work(handover, report, stopped)


if __name__ == "__main__":
    child.run(_checked, refusals=(WeakParser,))
