"""Whether a client takes what is written to it, and whether it is still there: asked of its socket, where no event tells."""

import asyncio
import fcntl
import select
import socket
import termios
from typing import cast


class Uptake:
    """Of one connection. `written` counts the bytes that were given to its transport."""

    __slots__ = ("_since_s", "_taken", "written")

    def __init__(self) -> None:
        self.written = 0
        self._taken = 0
        self._since_s = 0.0

    def untaken_s(self, transport: asyncio.Transport | None, now_s: float) -> float:
        """For how long the client has taken nothing of what waits for it here, as far as earlier looks can tell; 0: nothing waits."""
        unsent = transport.get_write_buffer_size() if transport is not None else 0
        taken = self.written if transport is None or not unsent else self.written - unsent - _in_kernel(transport)
        if not unsent or taken != self._taken:
            self._taken, self._since_s = taken, now_s
        return now_s - self._since_s


def is_gone_unread(transport: asyncio.Transport | None) -> bool:
    """Whether a connection that is not read for now, and so would not notice, was reset."""
    if transport is None or transport.is_closing() or transport.is_reading():
        return False
    poll = select.poll()
    poll.register(_descriptor(transport), 0)  # errors and hang-ups are told in any case
    return bool(poll.poll(0))


def _in_kernel(transport: asyncio.Transport) -> int:
    """Bytes that the client's host has not acknowledged."""
    return int.from_bytes(fcntl.ioctl(_descriptor(transport), termios.TIOCOUTQ, bytes(4)), "little")


def _descriptor(transport: asyncio.Transport) -> int:
    return cast("socket.socket", transport.get_extra_info("socket")).fileno()
