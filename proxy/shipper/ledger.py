"""Ledger: a spool's tracker together with its journal. What `write` returned from survives the shipper's death."""

import asyncio
import logging
import os
from pathlib import Path

from proxy.shipper import metrics
from proxy.shipper.journal import Entry, Journal
from proxy.shipper.reserve import FULL, Reserve
from proxy.shipper.tracker import Tracker
from proxy.spool.folder import segment_path

log = logging.getLogger(__name__)

_RETRY_S = 1.0


class Ledger:
    """While the disk refuses, `write` waits: nothing may be sent that is not written down."""

    def __init__(self, spool: Path) -> None:
        self.tracker = Tracker()
        self._spool = spool
        self._journal = Journal(spool)
        self._reserve = Reserve(spool.parent.parent)
        self._lock = asyncio.Lock()

    @property
    def bytes(self) -> int:
        return self._journal.bytes

    async def open(self) -> None:
        """Raises OSError."""
        self.tracker.restore(await asyncio.to_thread(self._journal.load))
        if self._journal.damaged_bytes:
            metrics.JOURNAL_DAMAGED.inc(self._journal.damaged_bytes)
            log.warning("spool %s: the last %d bytes of its journal were torn and are cut", self._spool.name, self._journal.damaged_bytes)
        try:
            await asyncio.to_thread(self._journal.rewrite, self.tracker.snapshot())
        except OSError as error:
            if error.errno not in FULL or not self._reserve.give():
                raise
            await asyncio.to_thread(self._journal.rewrite, self.tracker.snapshot())

    async def write(self, entries: list[Entry], *, frames: frozenset[int] | None = None) -> None:
        """With `frames`, the segments whose frames the entries rely on, both outlive the loss of power."""
        async with self._lock:
            while True:
                try:
                    snapshot = self.tracker.snapshot() if self._journal.broken else None
                    await asyncio.to_thread(self._write, entries, frames, snapshot)
                    break
                except OSError as error:
                    metrics.DISK_ERRORS.inc()
                    if error.errno in FULL and self._reserve.give():
                        continue
                    log.warning(
                        "spool %s: the journal cannot be written (%s): nothing is sent until it can", self._spool.name, error.strerror
                    )
                    await asyncio.sleep(_RETRY_S)
            if self._journal.overgrown:
                await self._rewrite()

    async def sync(self) -> bool:
        """False when the disk refuses."""
        async with self._lock:
            try:
                await asyncio.to_thread(self._journal.sync)
            except OSError:
                metrics.DISK_ERRORS.inc()
                return False
            return True

    async def close(self) -> None:
        async with self._lock:
            self._journal.close()

    def _write(self, entries: list[Entry], frames: frozenset[int] | None, snapshot: list[Entry] | None) -> None:
        for segment in frames or ():
            _sync_file(segment_path(self._spool, segment))
        if snapshot is not None:
            self._journal.rewrite(snapshot)
        self._journal.append(entries, durable=frames is not None)

    async def _rewrite(self) -> None:
        try:
            await asyncio.to_thread(self._journal.rewrite, self.tracker.snapshot())
        except OSError:
            metrics.DISK_ERRORS.inc()  # the next write tries again


def _sync_file(path: Path) -> None:
    """A segment that the disk cannot keep is no reason to hold back what can be read of it now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        metrics.DISK_ERRORS.inc()
        return
    try:
        os.fdatasync(descriptor)
    except OSError:
        metrics.DISK_ERRORS.inc()
    finally:
        os.close(descriptor)
