"""A worker: one process that serves calls on the inherited port. Started by the supervisor."""

import asyncio
import gc
import os
from collections.abc import Awaitable
from functools import lru_cache

from aiohttp import web

from clearpane.contract import secrets
from clearpane.contract.identifiers import new_spool_id
from clearpane.runtime import child
from clearpane.runtime.handover import Handover
from clearpane.settings import Settings
from proxy.answered import WeakParser, assert_c_parser
from proxy.call import Recorder, Recording
from proxy.capture import Budget
from proxy.limits import Limits
from proxy.listening import Listening
from proxy.loop import Loop
from proxy.plan import Plans
from proxy.recorder.link import RecorderLink
from proxy.recorder.start import Start
from proxy.routes import Routes
from proxy.server import ProxyServer
from proxy.upstream.pool import Pool, PoolBounds

# Connections that wait to be accepted; the kernel cuts it to net.core.somaxconn.
BACKLOG = 4096
# Rungs of the stop ladder behind `grace_s`.
CLOSE_TIMEOUT_S = 2.0
SPOOL_TIMEOUT_S = 10.0
# Calls leave no cycles behind, a client's connection leaves ten objects; looking at all open streams again and again for those
# few makes every one of them wait.
GC_THRESHOLDS = 50_000, 20, 50
# Callers have a handful of keys; the bound is for those who rotate them.
_FINGERPRINTS_KEPT = 4096


async def work(handover: Handover, report: child.Report, stopped: Awaitable[None]) -> None:
    """Serves until stopped, then: no new connections, open calls finish, the recorder writes down the last of them."""
    settings = handover.settings
    listener = handover.socket("listen")
    assert listener is not None
    recorder = RecorderLink(_start(settings), asyncio.get_running_loop())
    recorder.start()
    server = build(settings, recorder, handover.switches["pepper"])
    server.start()
    runner = web.ServerRunner(server.web_server, shutdown_timeout=CLOSE_TIMEOUT_S)
    await runner.setup()
    listening = Listening(listener, server.web_server, BACKLOG)
    listening.start()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.freeze()  # what lives as long as the process is not looked at in every full collection
    report({"event": "ready", "pid": os.getpid(), "spool": recorder.spool_id})
    try:
        await stopped
    finally:
        await listening.stop()
        listener.close()
        cut = await server.drain(settings.grace_s)
        await runner.cleanup()
        written = await recorder.stop(SPOOL_TIMEOUT_S)
        report({"event": "stopped", "cut": cut, "spool_written": written})


def _start(settings: Settings) -> Start:
    return Start(
        root=str(settings.data / "spool"),
        spool_id=new_spool_id(),
        bytes_max=settings.spool_bytes_max,
        segment_bytes=settings.spool_segment_bytes,
        queue_bytes_max=settings.spool_queue_bytes_max,
        log_level=settings.log_level,
    )


def build(settings: Settings, recorder: Recorder, pepper: str) -> ProxyServer:
    """The server with all that it needs; nothing is started."""

    @lru_cache(maxsize=_FINGERPRINTS_KEPT)
    def fingerprint(key: bytes) -> str:
        return secrets.fingerprint(key, pepper.encode())

    recording = Recording(
        recorder=recorder,
        budget=Budget(settings.capture_memory_bytes_max),
        capture_bytes_max=settings.capture_bytes_max,
    )
    pool = Pool(
        PoolBounds(
            connect_timeout_s=settings.connect_timeout_s,
            read_timeout_s=settings.read_timeout_s,
            idle_s=settings.upstream_idle_s,
            idle_max=settings.upstream_idle_max,
        ),
        bulk=loop.sockets.bulk if isinstance(loop := asyncio.get_running_loop(), Loop) else None,
    )
    plans = Plans(
        Routes(settings.default_upstream, settings.upstream),
        fingerprint,
        add_traceparent=settings.add_traceparent,
        add_request_id=settings.add_request_id,
        include_usage=settings.include_usage,
    )
    return ProxyServer(plans, pool, recording, _limits(settings))


def _limits(settings: Settings) -> Limits:
    return Limits(
        request_bytes_max=settings.request_bytes_max,
        head_bytes_max=settings.head_bytes_max,
        header_bytes_max=settings.header_bytes_max,
        headers_max=settings.headers_max,
        connections_max=settings.connections_max,
        head_timeout_s=settings.head_timeout_s,
        keepalive_timeout_s=settings.keepalive_timeout_s,
        request_timeout_s=settings.request_timeout_s,
        request_bytes_per_s_min=settings.request_bytes_per_s_min,
        write_timeout_s=settings.write_timeout_s,
        websocket_idle_s=settings.websocket_idle_s,
        drain_s=settings.drain_s if settings.client_gone == "drain" else 0.0,
    )


class NoUvloop(Exception):
    """The settings ask for uvloop, and it is not installed."""


def loop_of(settings: Settings) -> asyncio.AbstractEventLoop:
    """Raises NoUvloop."""
    if settings.loop == "asyncio":
        return Loop()
    try:
        import uvloop
    except ImportError:
        raise NoUvloop('loop = "uvloop" needs the package: pip install "clearpane[uvloop]", or leave `loop` at "asyncio"') from None
    return uvloop.new_event_loop()


async def _checked(handover: Handover, report: child.Report, stopped: Awaitable[None]) -> None:
    assert_c_parser()
    await work(handover, report, stopped)


if __name__ == "__main__":
    child.run(_checked, refusals=(WeakParser, NoUvloop), loop_of=loop_of)
