"""The admin port: health, readiness, and the metrics of all processes of this family."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import prometheus_client
from aiohttp import web
from prometheus_client import multiprocess

METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"


def metrics_directory() -> tempfile.TemporaryDirectory[str]:
    """A fresh folder that the family's processes share; gone when the parent is.

    Children find it through the variable METRICS_DIRECTORY, which must be set before they import
    prometheus_client; in memory where the system offers that, as it is written on every call.
    """
    shared = Path("/dev/shm")  # noqa: S108 - the folder below it has a random name and mode 0700
    place = shared if shared.is_dir() and os.access(shared, os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="clearpane-metrics-", dir=place)


def exposition(directory: str) -> bytes:
    """The sum over all processes, living and dead, in Prometheus' text format."""
    registry = prometheus_client.CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=directory)  # type: ignore[no-untyped-call]
    return prometheus_client.generate_latest(registry)


def forget(directory: str, pid: int) -> None:
    """Gauges of a dead process no longer count; its counters do."""
    multiprocess.mark_process_dead(pid, path=directory)  # type: ignore[no-untyped-call]


class Admin:
    """`/healthz` says that the parent lives, `/readyz` whether calls can be served, `/metrics` the figures."""

    def __init__(self, directory: str, ready: Callable[[], bool]) -> None:
        self._directory = directory
        self._ready = ready
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> None:
        """Raises OSError when the address cannot be had."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, request: web.Request) -> web.Response:
        ready = self._ready()
        return web.json_response({"status": "ready" if ready else "starting"}, status=200 if ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=exposition(self._directory), headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST})
