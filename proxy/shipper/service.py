"""Service: finds the spools, keeps a tail on each, and stops in order."""

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable
from datetime import datetime
from pathlib import Path

from clearpane.runtime import memory
from clearpane.settings import Settings
from proxy.shipper import LOCK, metrics
from proxy.shipper.kafka import Kafka
from proxy.shipper.post import Intake
from proxy.shipper.reserve import Reserve
from proxy.shipper.tail import Tail
from proxy.spool import claim, spools

log = logging.getLogger(__name__)

_SCAN_S = 0.5
# Dead workers' spools that are shipped at the same time, beside those of the living.
_ORPHANS_MAX = 4
_LOCK_RETRY_S = 0.5
# The ladder of a stop: deliver what is there, let what is under way end, close.
_DRAIN_TIMEOUT_S = 3.0
_FLUSH_TIMEOUT_S = 5.0
_DRAIN_POLL_S = 0.05


async def run(settings: Settings, stopped: Awaitable[None]) -> None:
    """Ships until `stopped` returns. What is left then is on disk for the next life."""
    stop = asyncio.ensure_future(stopped)
    try:
        async with _alone(settings.data, stop) as alone:
            if alone:
                await _ship(settings, stop)
    finally:
        stop.cancel()
        await asyncio.gather(stop, return_exceptions=True)


async def _ship(settings: Settings, stop: "asyncio.Future[None]") -> None:
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_owned(asyncio.create_task(memory.giving_back(), name="memory")))
        intake = None
        if settings.intake:
            intake = await stack.enter_async_context(Intake(settings.intake, settings.intake_secret, settings.post_timeout_s))
        kafka = Kafka(settings) if settings.kafka else None
        if kafka:
            await stack.enter_async_context(_owned(asyncio.create_task(kafka.run(), name="kafka")))
        if kafka is None and intake is None:
            log.warning("neither `kafka` nor `intake` is set: records stay in the spool")
        await _Service(settings, kafka, intake).run(stop)


@contextlib.asynccontextmanager
async def _owned(task: asyncio.Task[None]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def _alone(data: Path, stop: "asyncio.Future[None]") -> AsyncIterator[bool]:
    """Holds the data folder's shipper lock: two shippers would give one record two ways. False: stopped before it was ours."""
    data.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - once, before anything runs
    descriptor = os.open(data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        said = False
        while not stop.done():
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not said:
                    log.warning("another shipper works on %s: waiting until it ends", data)
                said = True
                await asyncio.wait({stop}, timeout=_LOCK_RETRY_S)
                continue
            yield True
            return
        yield False
    finally:
        os.close(descriptor)


class _Service:
    def __init__(self, settings: Settings, kafka: Kafka | None, intake: Intake | None) -> None:
        self._settings, self._kafka, self._intake = settings, kafka, intake
        self._root = settings.data / "spool"
        self._reserve = Reserve(settings.data)
        self._tails: dict[Path, tuple[Tail, asyncio.Task[None]]] = {}
        self._stopping = asyncio.Event()

    async def run(self, stop: "asyncio.Future[None]") -> None:
        while not stop.done():
            await self._scan()
            await asyncio.wait({stop}, timeout=_SCAN_S)
        await self._stop()

    async def _scan(self) -> None:
        self._reap()
        found = await asyncio.to_thread(spools, self._root)
        await asyncio.to_thread(self._reserve.keep)
        for folder in found:
            if folder not in self._tails:
                self._follow(folder)
        for tail, _ in self._tails.values():
            tail.claim = tail.claim or claim(tail.folder)
        self._measure(found)

    def _follow(self, folder: Path) -> None:
        orphan = claim(folder)
        if orphan is not None and sum(tail.claim is not None for tail, _ in self._tails.values()) >= _ORPHANS_MAX:
            orphan.release()
            return
        tail = Tail(folder, self._settings, self._kafka, self._intake)
        tail.claim = orphan
        if orphan is not None:
            log.info("spool %s: its worker is gone; its records are shipped now", folder.name)
        self._tails[folder] = (tail, asyncio.create_task(tail.run(self._stopping, _FLUSH_TIMEOUT_S), name=f"tail {folder.name}"))

    def _reap(self) -> None:
        """Tails that ended: their spool is gone, or something failed and the next scan begins anew."""
        for folder, (tail, task) in list(self._tails.items()):
            if not task.done():
                continue
            del self._tails[folder]
            if tail.claim is not None:
                tail.claim.release()
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("spool %s: shipping failed and begins anew", folder.name, exc_info=error)

    def _measure(self, found: list[Path]) -> None:
        tails = [tail for tail, _ in self._tails.values()]
        metrics.SPOOLS.set(len(found))
        metrics.SPOOL_BYTES.set(sum(_size(folder) for folder in found))
        metrics.SPOOLED.set(sum(tail.spooled for tail in tails))
        metrics.JOURNAL_BYTES.set(sum(tail.journal_bytes for tail in tails))
        oldest = min((at for tail in tails if (at := tail.oldest)), default=None)
        metrics.OLDEST_AGE.set(max(0.0, time.time() - datetime.fromisoformat(oldest).timestamp()) if oldest else 0.0)

    async def _stop(self) -> None:
        loop = asyncio.get_running_loop()
        for tail, _ in self._tails.values():
            tail.hurry()
        until_s = loop.time() + _DRAIN_TIMEOUT_S
        while loop.time() < until_s and not all(tail.idle or task.done() for tail, task in self._tails.values()):  # noqa: ASYNC110
            await asyncio.sleep(_DRAIN_POLL_S)
        self._stopping.set()
        tasks = {task for _, task in self._tails.values()}
        if tasks:
            # Each tail keeps the time itself; this is the rung below, should one not.
            await asyncio.wait(tasks, timeout=3 * _FLUSH_TIMEOUT_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._reap()


def _size(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(entry.stat().st_size for entry in entries if entry.name.endswith(".seg"))
    except FileNotFoundError:
        return 0
