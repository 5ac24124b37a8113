"""The worker's end of what it shares with its recorder. Nothing here waits, and nothing waits here.

Notes go through a small ring; while the recorder is behind, through a larger one, the queue. Both survive the
worker and the recorder. The queue is bounded: bodies go first, then records, and each is counted. A recorder
that dies is started again and goes on where the last one had not settled.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from proxy.recorder.note import Kind, Note, Side, encode
from proxy.recorder.ring import Ring
from proxy.recorder.start import Start
from proxy.spool import folder as folders
from proxy.spool.space import Gap, Rung, rung

# Small enough to stay in a processor's cache: a larger one costs the worker more per note.
RING_BYTES = 1 << 20
# How soon it is tried again: to start a recorder that died, and to tell it of the last dropped records.
_RESTART_S, _AGAIN_S = 0.2, 0.01
# The queue's memory goes back to the system when it was not needed for so long, in pieces that stop the worker for 60 us each. While it
# is needed it stays: given back at once and taken again, page by page, it was a tenth of what a call costs.
_QUIET_S, _GIVE_BYTES, _GIVE_EVERY_S = 1.0, 256 << 10, 0.02
# Two digests in place of two bodies, and what marshal writes around them.
_DIGESTS_BYTES = 256
_COMPLETED = int(Kind.COMPLETED)

log = logging.getLogger(__name__)


class RecorderLink:
    """`start` names the spool and its bounds; `queue_bytes_max` bounds what waits here for the ring, too."""

    def __init__(self, start: Start, loop: asyncio.AbstractEventLoop) -> None:
        """Raises OSError when there is no memory to share."""
        self.admitted = 0
        self._ring, self._queue = Ring.create(RING_BYTES), Ring.create(start.queue_bytes_max)
        self._claim = _claimed(start)
        lock = None if self._claim is None else self._claim.descriptor
        self._start = replace(start, ring=self._ring.descriptor, ring_bytes=RING_BYTES, queue=self._queue.descriptor, lock=lock)
        self._loop = loop
        self._child: subprocess.Popen[bytes] | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._wake = -1
        self._giving: asyncio.TimerHandle | None = None
        self._given_bytes = 0  # of the queue's memory, since it was needed last
        self._needed = False  # the queue, since `_give_back` looked last
        self._owed = Gap()  # records dropped here, of which the recorder does not know yet

    def start(self) -> None:
        """Raises OSError when no process can be had."""
        wake, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        start = self._start
        kept = [descriptor for descriptor in (start.ring, start.queue, start.lock) if descriptor is not None]
        try:
            self._child = subprocess.Popen(  # noqa: S603 - ours
                [sys.executable, "-P", "-m", "proxy.recorder", start.to_argument()],
                stdin=wake,
                stdout=subprocess.PIPE,  # nothing comes through it but its end
                pass_fds=kept,
                # A session of its own: what a terminal sends to its group is not meant for who writes down the last call.
                start_new_session=True,
            )
        finally:
            os.close(wake)
        assert self._child.stdout is not None
        self._loop.add_reader(self._child.stdout, self._ended)
        self._restart = None

    @property
    def spool_id(self) -> str:
        return self._start.spool_id

    @property
    def queue_bytes(self) -> int:
        return self._queue.used_bytes

    def admit(self) -> int:
        """The call's sequence number: 0, 1, 2, ..."""
        sequence = self.admitted
        self.admitted = sequence + 1
        return sequence

    def send(self, note: tuple[Any, ...]) -> None:
        """A Note as a plain tuple."""
        data = encode(note)
        if self._queue.used_bytes or not self._ring.put(data):  # what is queued goes first
            self._send_by_room(Note(*note), data)
        if self._ring.reader_sleeps:
            self._wake_reader()

    async def stop(self, timeout_s: float) -> bool:
        """Lets the recorder finish. False when the deadline passed first."""
        if self._giving is not None:
            self._giving.cancel()
        try:
            async with asyncio.timeout(timeout_s):
                while self._owed.count:  # for this the queue must have room again
                    self._state_owed()
                    await asyncio.sleep(_AGAIN_S)
                return await self._finish()
        except TimeoutError:
            return False

    async def _finish(self) -> bool:
        if self._restart is not None:
            self._restart.cancel()
            self.start()
        child = self._child
        assert child is not None
        assert child.stdout is not None
        self._loop.remove_reader(child.stdout)
        self._close_wake()  # its end tells the recorder that no more will come
        code = await asyncio.to_thread(child.wait)
        child.stdout.close()
        if self._claim is not None:
            self._claim.release()
        return code == 0

    def _wake_reader(self) -> None:
        with contextlib.suppress(OSError):  # it is awake already, or gone: then its end is heard elsewhere
            os.write(self._wake, b"\0")

    def _close_wake(self) -> None:
        descriptor, self._wake = self._wake, -1
        if descriptor >= 0:
            os.close(descriptor)

    # The queue

    def _send_by_room(self, note: Note, data: bytes) -> None:
        if self._owed.count:
            self._state_owed()
        size = len(data)
        bodies = sum(len(piece) for side in (note.request, note.response) if side is not None for piece in side[3])
        choice = rung(self._queue.used_bytes, self._queue.capacity_bytes, size, size - bodies + _DIGESTS_BYTES if bodies else size)
        if choice is Rung.BARE:
            data = encode(_without_bodies(note))  # only now: digests of bodies take their time
        if choice is not Rung.DROP:
            self._queue.put(data)
        elif note.kind == _COMPLETED:
            self._owed.add(note.sequence)
        self._needed = True
        if self._giving is None:
            self._giving = self._loop.call_later(_QUIET_S, self._give_back)

    def _give_back(self) -> None:
        if self._needed or self._queue.used_bytes:
            self._needed, self._given_bytes = False, 0
            self._giving = self._loop.call_later(_QUIET_S, self._give_back)
            return
        self._queue.release(self._given_bytes, _GIVE_BYTES)
        self._given_bytes += _GIVE_BYTES
        more = self._given_bytes < self._queue.capacity_bytes
        self._giving = self._loop.call_later(_GIVE_EVERY_S, self._give_back) if more else None

    def _state_owed(self) -> None:
        if self._queue.put(encode((int(Kind.OWED), self._owed.ranges))):
            self._owed = Gap()

    # When the recorder died

    def _ended(self) -> None:
        log.error("the recorder of this worker died; another goes on where it was")
        child, self._child = self._child, None
        if child is not None and child.stdout is not None:
            self._loop.remove_reader(child.stdout)
            child.stdout.close()
            child.wait()  # it closed its end by dying
        self._close_wake()
        self._restart = self._loop.call_later(_RESTART_S, self._start_again)

    def _start_again(self) -> None:
        try:
            self.start()
        except OSError:
            self._restart = self._loop.call_later(_RESTART_S, self._start_again)


def _claimed(start: Start) -> folders.Claim | None:
    """The spool's lock, ours as long as worker or recorder live. A disk that refuses now is the recorder's to ask again."""
    try:
        return folders.create(Path(start.root), start.spool_id)
    except OSError:
        return None


def _without_bodies(note: Note) -> Note:
    """The digests stay: they are of the bytes that were seen."""
    assert note.request is not None
    assert note.response is not None
    return note._replace(request=_bare(note.request), response=_bare(note.response), dropped=True, times_ms=None)


def _bare(side: tuple[int, bool, str | None, list[bytes]]) -> tuple[int, bool, str | None, list[bytes]]:
    found = Side(*side)
    digest = found.sha256 or hashlib.sha256(b"".join(found.pieces)).hexdigest()
    return found.seen, found.truncated, digest, []
