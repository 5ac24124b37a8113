"""`python -m proxy.recorder`: started by a worker, reads its notes on standard input until their end, then leaves.

Only that end stops it: whatever ends the worker, the notes that are in the pipe come to the disk.
"""

import os
import select
import signal
import sys
import time

from clearpane.runtime import logs
from clearpane.runtime.child import leave
from proxy.recorder.note import Notes, Start
from proxy.recorder.writing import Writing

_READ_BYTES = 1 << 20
_TELL_EVERY_S = 1.0
# After a read the worker may go on writing for so long without waking us up: a wake-up costs it more than the write.
_LINGER_S = 0.001
_STOP_TIMEOUT_S = 60.0


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    pipe = sys.stdin.fileno()
    notes = Notes()
    writing: Writing | None = None
    while data := _read(pipe, writing):
        for note in notes.feed(data):
            if writing is None:
                writing = _begin(Start(*note))
            else:
                writing.take(note)
    return 0 if writing is None or writing.stop(_STOP_TIMEOUT_S) else 1


def _begin(start: Start) -> Writing:
    logs.start(start.log_level)
    return Writing(start)


def _read(pipe: int, writing: Writing | None) -> bytes:
    while writing is not None and not select.select([pipe], [], [], _TELL_EVERY_S)[0]:
        writing.tell()
    data = os.read(pipe, _READ_BYTES)
    if writing is not None and len(data) < _READ_BYTES:
        writing.tell_sometimes()
        time.sleep(_LINGER_S)
    return data


if __name__ == "__main__":
    leave(main())
