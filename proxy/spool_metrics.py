"""The spool's own counts, carried into the metrics once a second: nothing is counted twice on the path of a call."""

import asyncio
from collections import Counter as Counts
from collections.abc import Mapping

from prometheus_client import Counter

from proxy import metrics
from proxy.spool import SpoolThread

EVERY_S = 1.0


class SpoolMetrics:
    def __init__(self, spool: SpoolThread) -> None:
        self._spool = spool
        self._told: Counts[tuple[str, str]] = Counts()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._forever(), name="spool metrics")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.tell()

    def tell(self) -> None:
        counters = self._spool.counters
        self._advance("completed", {"": counters.written_records}, metrics.SPOOL_COMPLETED)
        self._advance("records", counters.dropped_records, metrics.SPOOL_DROPPED_RECORDS)
        self._advance("bodies", counters.dropped_bodies, metrics.SPOOL_DROPPED_BODIES)
        metrics.SPOOL_BYTES.set(counters.disk_bytes)

    def _advance(self, what: str, now: Mapping[str, int], counter: Counter) -> None:
        for reason, value in dict(now).items():
            step = value - self._told[what, reason]
            if step:
                self._told[what, reason] = value
                (counter.labels(reason) if reason else counter).inc(step)

    async def _forever(self) -> None:
        while True:
            self.tell()
            await asyncio.sleep(EVERY_S)
