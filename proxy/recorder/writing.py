"""Notes -> frames of the spool, and the spool's counts -> metrics."""

import socket
import time
from collections import Counter as Counts
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import Counter

from proxy import metrics
from proxy.recorder.facts import facts_of
from proxy.recorder.note import Kind, Note, Owed
from proxy.recorder.start import Start
from proxy.spool import Claim, SpoolThread, written_last

TELL_EVERY_S = 1.0


class Writing:
    """One spool."""

    def __init__(self, start: Start) -> None:
        folder = Path(start.root) / start.spool_id
        # What an earlier recorder of this worker wrote and had no time to settle comes again.
        number, self._written = written_last(folder)
        self.spool = SpoolThread(
            Path(start.root),
            bytes_max=start.bytes_max,
            segment_bytes=start.segment_bytes,
            queue_bytes_max=start.queue_bytes_max,
            spool_id=start.spool_id,
            claim=None if start.lock is None else Claim(folder, start.lock),
            number=number,
        )
        self.spool.start()
        self._hostname = socket.gethostname()
        self._told: Counts[tuple[str, str]] = Counts()
        self._told_s = 0.0

    def take(self, values: tuple[Any, ...]) -> None:
        if values[0] == Kind.OWED:
            self.spool.refused(Owed(*values).ranges)
        elif not self._written or (values[0], values[1]) not in self._written:
            self._write(Note(*values))

    def _write(self, note: Note) -> None:
        facts, request, response = facts_of(note, self._hostname)
        data = orjson.dumps(facts)
        if note.kind == Kind.ADMITTED:
            self.spool.admit(data, note.sequence)
        elif note.kind == Kind.STARTED:
            self.spool.started(note.sequence, data)
        else:
            self.spool.counters.dropped_bodies["queue"] += note.dropped
            self.spool.completed(note.sequence, data, request, response)

    def stop(self, timeout_s: float) -> bool:
        """False when the disk did not take it all in time."""
        written = self.spool.stop(timeout_s)
        self.tell()
        metrics.SPOOL_BYTES.set(0)  # of living workers' spools
        return written

    def tell_sometimes(self) -> None:
        if time.monotonic() - self._told_s >= TELL_EVERY_S:
            self.tell()

    def tell(self) -> None:
        self._told_s = time.monotonic()
        counters = self.spool.counters
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
