"""`python -m proxy.recorder`: started by a worker, reads its notes from the ring, then leaves.

Standard input wakes it up and, by its end, says that the worker is gone; nothing else stops it. Whatever ended the
worker, the notes that are in the ring come to the disk.
"""

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
# Between two looks at the ring: being woken up costs the worker more than the note.
_LINGER_S = 0.001
_WAKE_BYTES = 4096
_STOP_TIMEOUT_S = 60.0


class Reading:
    """From the ring to the spool. A note's room is given back when its frame is on disk, or dropped and counted."""

    def __init__(self, ring: Ring, writing: Writing) -> None:
        self._ring, self._writing = ring, writing
        self._position = ring.settled
        self._notes = Notes(self._position)
        self._unsettled: deque[tuple[int, int]] = deque()  # items of the spool, position in the ring

    def take(self) -> bool:
        """Whether there was anything."""
        data = self._ring.read(self._position)
        self._position += len(data)
        for note in self._notes.feed(data):
            self._writing.take(note)
            self._unsettled.append((self._writing.spool.taken_in, self._notes.position))
        self._settle()
        return bool(data)

    @property
    def settled(self) -> bool:
        return not self._unsettled

    def _settle(self) -> None:
        through, position = self._writing.spool.written_through, self._ring.settled
        while self._unsettled and self._unsettled[0][0] <= through:
            position = self._unsettled.popleft()[1]
        if not self._unsettled and self._position - position == self._ring.capacity_bytes:
            position = self._position  # the beginning of a note that is larger than the ring
        self._ring.settle(position)


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    start = Start.from_argument(sys.argv[1])
    logs.start(start.log_level)
    ring = Ring(start.ring, start.ring_bytes)
    writing = Writing(start)
    reading = Reading(ring, writing)
    while reading.take() or not reading.settled or _sleep(ring, reading, writing):
        writing.tell_sometimes()
        time.sleep(_LINGER_S)
    reading.take()
    return 0 if writing.stop(_STOP_TIMEOUT_S) else 1


def _sleep(ring: Ring, reading: Reading, writing: Writing) -> bool:
    """Until there is something to do; False when the worker is gone, and then only what is in the ring is left to do."""
    wake = sys.stdin.fileno()
    ring.sleep(True)
    try:
        while not reading.take():
            if select.select([wake], [], [], _TELL_EVERY_S)[0]:
                return bool(os.read(wake, _WAKE_BYTES)) or reading.take()
            writing.tell()
        return True
    finally:
        ring.sleep(False)


if __name__ == "__main__":
    leave(main())
