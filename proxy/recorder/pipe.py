"""The worker's end of the pipe to its recorder. Nothing here waits: what the pipe does not take at once is queued.

What is in the pipe is the kernel's and survives the worker; what is queued does not, so the queue is there for the
moments in which the recorder is behind. It is bounded: bodies go first, then records, and each is counted.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import subprocess
import sys
from collections import deque
from typing import Any

from clearpane.contract.identifiers import new_spool_id
from proxy import metrics
from proxy.recorder.note import Kind, Note, Side, Start, encode
from proxy.spool.space import Gap, Rung, rung

# Linux lets any user have a pipe of so many bytes; another system keeps its own size.
_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031  # fcntl.F_SETPIPE_SZ
_COMPLETED = int(Kind.COMPLETED)
_ITEM_BYTES = 256
_RESTART_S = 0.2

log = logging.getLogger(__name__)


class RecorderPipe:
    """`start` names the spool and its bounds; `queue_bytes_max` bounds what waits here for the pipe, too."""

    def __init__(self, start: Start, loop: asyncio.AbstractEventLoop) -> None:
        self.admitted = 0
        self._start, self._loop = start, loop
        self._fd = -1
        self._child: subprocess.Popen[bytes] | None = None
        self._first = 0  # the first call that this recorder knows of
        self._queue: deque[bytes] = deque()
        self._queue_bytes = 0
        self._empty: asyncio.Future[None] | None = None  # set when the queue is, for who waits for that
        self._owed = Gap()  # records dropped here, of which the recorder does not know yet

    def start(self) -> None:
        """Raises OSError when no process can be had. The spool is as new as the recorder."""
        self._first = self.admitted
        read_end, self._fd = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._fd, _SET_PIPE_SIZE, _PIPE_BYTES)
        os.set_blocking(self._fd, False)
        command = [sys.executable, "-P", "-m", "proxy.recorder"]
        # A session of its own: what a terminal sends to its group is not meant for who must write down the last call.
        self._child = subprocess.Popen(command, stdin=read_end, stdout=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - ours
        os.close(read_end)
        self.send_data(encode(self._start))

    @property
    def spool_id(self) -> str:
        return self._start.spool_id

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def queue_bytes(self) -> int:
        return self._queue_bytes

    def admit(self) -> int:
        """The call's sequence number: 0, 1, 2, ..."""
        sequence = self.admitted
        self.admitted = sequence + 1
        return sequence

    def send(self, note: tuple[Any, ...]) -> None:
        """A Note as a plain tuple."""
        if self._fd < 0 or note[1] < self._first:
            self._drop(note)
        elif self._queue:
            self._send_by_room(Note(*note))
        else:
            self.send_data(encode(note))

    def send_data(self, data: bytes) -> None:
        try:
            written = os.write(self._fd, data)
        except BlockingIOError:
            written = 0
        except OSError:  # the recorder is gone
            self._lost()
            return
        if written < len(data):
            self._wait_for_room(data[written:])

    async def stop(self, timeout_s: float) -> bool:
        """Hands over what waits and lets the recorder finish. False when the deadline passed first."""
        try:
            async with asyncio.timeout(timeout_s):
                if self._queue:
                    self._empty = self._loop.create_future()
                    await self._empty
                self._close()
                return self._child is None or await asyncio.to_thread(self._child.wait) == 0
        except TimeoutError:
            return False

    # The queue

    def _send_by_room(self, note: Note) -> None:
        if self._owed.count and note.kind == _COMPLETED:
            self._state_owed()
        data = encode(note)
        bare = _without_bodies(note)
        bare_data = data if bare is note else encode(bare)
        choice = rung(self._queue_bytes, self._start.queue_bytes_max, len(data) + _ITEM_BYTES, len(bare_data) + _ITEM_BYTES)
        if choice is Rung.DROP:
            if note.kind == _COMPLETED:
                self._owed.add(note.sequence)
            return
        self._enqueue(data if choice is Rung.KEEP else bare_data)

    def _state_owed(self) -> None:
        data = encode((int(Kind.OWED), self._owed.ranges))
        if rung(self._queue_bytes, self._start.queue_bytes_max, len(data), len(data)) is Rung.KEEP:
            self._owed = Gap()
            self._enqueue(data)

    def _enqueue(self, data: bytes) -> None:
        self._queue.append(data)
        self._queue_bytes += len(data) + _ITEM_BYTES

    def _wait_for_room(self, rest: bytes) -> None:
        self._enqueue(rest)
        self._loop.add_writer(self._fd, self._write_queue)

    def _write_queue(self) -> None:
        while self._queue:
            data = self._queue[0]
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:
                return
            except OSError:
                self._lost()
                return
            if written < len(data):
                self._queue[0] = data[written:]
                self._queue_bytes -= written
                return
            self._queue.popleft()
            self._queue_bytes -= len(data) + _ITEM_BYTES
        self._loop.remove_writer(self._fd)
        self._say_empty()
        if self._owed.count:
            data, self._owed = encode((int(Kind.OWED), self._owed.ranges)), Gap()
            self.send_data(data)

    def _say_empty(self) -> None:
        if self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def _close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1

    # When the recorder died

    def _lost(self) -> None:
        """Its spool is over: the calls that are open in it are `interrupted` there, so nothing more may be said of them."""
        log.error("the recorder of this worker died; a new one is started")
        self._close()
        self._queue.clear()
        self._queue_bytes, self._owed = 0, Gap()
        self._say_empty()
        self._loop.call_later(_RESTART_S, self._start_again)

    def _start_again(self) -> None:
        if self._child is not None:
            self._child.wait()  # it closed its end of the pipe by dying
        self._start = self._start._replace(spool_id=new_spool_id())
        try:
            self.start()
        except OSError:
            self._loop.call_later(_RESTART_S, self._start_again)

    @staticmethod
    def _drop(note: tuple[Any, ...]) -> None:
        if note[0] == _COMPLETED:
            metrics.SPOOL_DROPPED_RECORDS.labels("recorder").inc()


def _without_bodies(note: Note) -> Note:
    """The digests stay: they are of the bytes that were seen. Without a body there is nothing to leave out."""
    if note.request is None or note.response is None or not (note.request[3] or note.response[3]):
        return note
    return note._replace(request=_bare(note.request), response=_bare(note.response), dropped=True)


def _bare(side: tuple[int, bool, str | None, list[bytes]]) -> tuple[int, bool, str | None, list[bytes]]:
    found = Side(*side)
    digest = found.sha256 or hashlib.sha256(b"".join(found.pieces)).hexdigest()
    return found.seen, found.truncated, digest, []
