"""Takes connections from the listening socket, as many as wait, whatever the loop is.

uvloop takes one a turn, and under load a turn is long: the last of a thousand clients would wait for seconds.
"""

import asyncio
import socket
from collections.abc import Callable

# One turn of the loop takes no more: those who are served already wait meanwhile.
_ACCEPTS_MAX = 256
# Out of file descriptors: asking again at once would only burn a core.
_PAUSE_S = 0.5


class Listening:
    """From `start` to `stop`; the socket stays open, it belongs to who made it."""

    def __init__(self, listener: socket.socket, factory: Callable[[], asyncio.BaseProtocol], backlog: int) -> None:
        self._listener, self._factory, self._backlog = listener, factory, backlog
        self._loop = asyncio.get_running_loop()
        self._accepted: set[asyncio.Task[object]] = set()
        self._paused: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._listener.listen(self._backlog)
        self._resume()

    async def stop(self) -> None:
        self._loop.remove_reader(self._listener)
        if self._paused is not None:
            self._paused.cancel()
        await asyncio.gather(*self._accepted, return_exceptions=True)

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_MAX):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(self._listener)
                self._paused = self._loop.call_later(_PAUSE_S, self._resume)
                return
            connection.setblocking(False)
            task: asyncio.Task[object] = self._loop.create_task(self._loop.connect_accepted_socket(self._factory, connection))
            self._accepted.add(task)
            task.add_done_callback(self._accepted.discard)
