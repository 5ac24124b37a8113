"""`python -m proxy.recorder`: started by a worker, reads its notes, then leaves.

Standard input wakes it up and, by its end, says that the worker is gone; nothing else stops it. Whatever ended the
worker, the notes that it left come to the disk.
"""

import contextlib
import os
import select
import signal
import sys
import time
from collections import deque

from clearpane.runtime import logs
from clearpane.runtime.child import leave
from proxy.recorder.note import Notes
from proxy.recorder.ring import Ring
from proxy.recorder.start import Start
from proxy.recorder.writing import Writing

_TELL_EVERY_S = 1.0
# Between two looks at the ring: being woken up costs the worker more than the note. A ring full of notes takes ten times as long.
_LINGER_S = 0.004
_WAKE_BYTES = 4096
_READ_BYTES = 1 << 20
# While no more than this waits, the core is left after each note to a worker that wants it: a burst of notes took a millisecond of it.
_UNHURRIED_BYTES = 256 << 10
_STOP_TIMEOUT_S = 60.0


class Reading:
    """From one ring to the spool. A note's room is given back when its frame is on disk, or dropped and counted."""

    def __init__(self, ring: Ring, writing: Writing) -> None:
        self._ring, self._writing = ring, writing
        self._position = ring.settled
        self._notes = Notes(self._position)
        self._unsettled: deque[tuple[int, int]] = deque()  # items of the spool, position in the ring

    @property
    def written(self) -> int:
        return self._ring.written

    @property
    def settled(self) -> bool:
        return not self._unsettled

    def take(self, end: int) -> bool:
        """All notes before this position. Whether there were any."""
        begun = self._position
        unhurried = end - begun <= _UNHURRIED_BYTES
        while self._position < end:
            step = min(end, self._position + _READ_BYTES)
            for note in self._notes.feed(self._ring.read(self._position, step)):
                self._writing.take(note)
                self._unsettled.append((self._writing.spool.taken_in, self._notes.position))
                if unhurried:
                    os.sched_yield()
            self._position = step
            self._settle()
        self._settle()
        return self._position > begun

    def _settle(self) -> None:
        through, position = self._writing.spool.written_through, None
        while self._unsettled and self._unsettled[0][0] <= through:
            position = self._unsettled.popleft()[1]
        if position is not None:
            self._ring.settle(position)


class Rings:
    """The small one and the queue, in the order in which they were written.

    While something is queued nothing is put into the small ring, so what is in it then came before.
    """

    def __init__(self, start: Start, writing: Writing) -> None:
        self.ring = Ring(start.ring, start.ring_bytes)
        queue = Ring(start.queue, start.queue_bytes_max)
        self._readings = Reading(self.ring, writing), Reading(queue, writing)

    def take(self) -> bool:
        """Whether there was anything, or is something not settled yet."""
        small, queue = self._readings
        queued = queue.written
        found = small.take(small.written)
        found |= queue.take(queued)
        return found or not (small.settled and queue.settled)


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    start = Start.from_argument(sys.argv[1])
    logs.start(start.log_level)
    _let_others_run()
    writing = Writing(start)
    rings = Rings(start, writing)
    while rings.take() or _sleep(rings, writing):
        writing.tell_sometimes()
        time.sleep(_LINGER_S)
    return 0 if writing.stop(_STOP_TIMEOUT_S) else 1


def _let_others_run() -> None:
    """On a core that both share, the recorder wakes up without taking it from a worker that is at a call."""
    with contextlib.suppress(OSError):  # not allowed in this container: then it runs as all others do
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _sleep(rings: Rings, writing: Writing) -> bool:
    """Until there is something to do; False when the worker is gone, and with it all that will come."""
    wake = sys.stdin.fileno()
    rings.ring.sleep(True)
    try:
        while not rings.take():
            if select.select([wake], [], [], _TELL_EVERY_S)[0]:
                return bool(os.read(wake, _WAKE_BYTES)) or rings.take()
            writing.tell()
        return True
    finally:
        rings.ring.sleep(False)


if __name__ == "__main__":
    leave(main())
