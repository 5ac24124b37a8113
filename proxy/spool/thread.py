"""SpoolThread: a writer of the spool that never lets its caller wait for the disk."""

import queue
import threading
import time
from pathlib import Path

from clearpane.contract.identifiers import new_spool_id
from proxy.spool.folder import Claim
from proxy.spool.frames import FrameType
from proxy.spool.space import Gap, Rung, SpoolCounters, rung, sides_of
from proxy.spool.writer import Item, SpoolWriter

# What a waiting item costs beside its bytes; it bounds the number of small ones.
_ITEM_BYTES = 256
# One turn of the thread. Small, since it holds the interpreter from the loop thread while it builds a batch.
_BATCH_ITEMS = 64
_BATCH_BYTES = 1 << 20
# After the first item of a turn the thread waits this long for company: putting an item is cheap while nobody waits for it.
_LINGER_S = 0.001
_IDLE_S = 1.0


class SpoolThread:
    """`root` holds a folder per spool; `bytes_max` on disk, `queue_bytes_max` waiting for the disk.

    `written_through` counts those of the items `taken_in`, in their order, that are on disk (or were dropped and counted).
    `claim` and `number`: of a spool that another has begun (see SpoolWriter).
    """

    def __init__(
        self,
        root: Path,
        *,
        bytes_max: int,
        segment_bytes: int,
        queue_bytes_max: int,
        spool_id: str | None = None,
        claim: Claim | None = None,
        number: int = 0,
    ) -> None:
        self.spool_id = spool_id or new_spool_id()
        self.folder = root / self.spool_id
        self.counters = SpoolCounters()
        self.taken_in = 0
        self.written_through = 0
        self._writer = SpoolWriter(
            root, self.spool_id, bytes_max=bytes_max, segment_bytes=segment_bytes, counters=self.counters, claim=claim, number=number
        )
        self._queue_bytes_max = queue_bytes_max
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._sequence = 0
        self._bytes_in = 0  # written by the caller only
        self._bytes_out = 0  # written by the thread only
        self._refused = Gap()
        self._refused_lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def queue_bytes(self) -> int:
        return self._bytes_in - self._bytes_out

    def admit(self, facts: bytes, sequence: int | None = None) -> int:
        """The call's sequence number: the one given, else 0, 1, 2, ..."""
        sequence = self._sequence if sequence is None else sequence
        self._sequence = sequence + 1
        self.counters.admitted += 1
        self._offer(FrameType.ADMITTED, sequence, facts, b"", b"")
        return sequence

    def started(self, sequence: int, facts: bytes) -> None:
        self.counters.started += 1
        self._offer(FrameType.STARTED, sequence, facts, b"", b"")

    def completed(self, sequence: int, facts: bytes, request_body: bytes, response_body: bytes) -> None:
        self.counters.completed += 1
        self._offer(FrameType.COMPLETED, sequence, facts, request_body, response_body)

    def refused(self, ranges: list[tuple[int, int]]) -> None:
        """Records of these sequences (inclusive) were dropped before they came here."""
        dropped = Gap()
        for first, last in ranges:
            dropped.add_range(first, last)
        self.counters.completed += dropped.count
        self.counters.dropped_records["queue"] += dropped.count
        with self._refused_lock:
            self._refused.merge(dropped)

    def stop(self, timeout_s: float) -> bool:
        """Writes what waits, makes it durable, lets go of the lock. False when the deadline passed first."""
        if self._thread.ident is None:
            return self._queue.empty()
        self._stopping = True
        self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # The caller's thread

    def _offer(self, kind: int, sequence: int, facts: bytes, request: bytes, response: bytes) -> None:
        bare_size = _ITEM_BYTES + len(facts)
        size = bare_size + len(request) + len(response)
        dropped: tuple[str, ...] = ()
        choice = Rung.DROP if self._stopping else rung(self.queue_bytes, self._queue_bytes_max, size, bare_size)
        if choice is Rung.DROP:
            self._refuse(kind, sequence)
            return
        if choice is Rung.BARE:
            self.counters.dropped_bodies["queue"] += 1
            dropped, request, response, size = sides_of(request, response), b"", b"", bare_size
        self._bytes_in += size
        self.taken_in += 1
        self._queue.put((kind, sequence, facts, request, response, dropped))

    def _refuse(self, kind: int, sequence: int) -> None:
        if kind != FrameType.COMPLETED:
            self.counters.dropped_marks["queue"] += 1
            return
        self.counters.dropped_records["queue"] += 1
        with self._refused_lock:
            self._refused.add(sequence)

    # The spool's thread

    def _run(self) -> None:
        self._writer.look()
        stopping = False
        while not stopping:
            items, stopping = self._take()
            self._report_refused()
            if items:
                self._writer.append(items)
                self.written_through += len(items)
                self._bytes_out += sum(map(_item_bytes, items))
            else:
                self._writer.look()
        self._writer.close()

    def _take(self) -> tuple[list[Item], bool]:
        """A batch, after a wait for its first item; and whether `stop` stood behind it."""
        items: list[Item] = []
        size = 0
        try:
            item = self._queue.get(timeout=_IDLE_S)
            if self._queue.empty():
                time.sleep(_LINGER_S)
            while item is not None:
                items.append(item)
                size += _item_bytes(item)
                if len(items) == _BATCH_ITEMS or size >= _BATCH_BYTES:
                    return items, False
                item = self._queue.get_nowait()
        except queue.Empty:
            return items, False
        return items, True

    def _report_refused(self) -> None:
        if not self._refused.count:
            return
        with self._refused_lock:
            gap, self._refused = self._refused, Gap()
        self._writer.owe("queue", gap)


def _item_bytes(item: Item) -> int:
    return _ITEM_BYTES + len(item[2]) + len(item[3]) + len(item[4])
