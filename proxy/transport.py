"""A TCP connection's transport, told by the selector itself that its socket is ready.

asyncio's takes a handle, a context and four functions to bring a protocol some bytes; with this one a call costs a worker
7 % less. It does what the protocols of a worker ask of a transport, and does it as asyncio's would; TLS has asyncio's.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from select import EPOLLIN, EPOLLOUT
from typing import Any, Protocol

from proxy.selector import Selector

# asyncio's own, for sockets.
WRITE_BUFFER_BYTES_HIGH = 64 << 10
# One read at a time is under way in a process, and it is copied out at once.
READ_BYTES = 256 << 10
READ = memoryview(bytearray(READ_BYTES))
_LINGER_OFF = struct.pack("ii", 1, 0)


class StreamProtocol(Protocol):
    """asyncio.Protocol, by shape."""

    def connection_made(self, transport: Any) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool | None: ...

    def connection_lost(self, exc: BaseException | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


def reset_on_close(transport: asyncio.Transport) -> None:
    """Of any transport over a socket: the other side will see a reset and no end."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)


class Transport:
    """asyncio.Transport, by shape, for one protocol. The socket is its own, and does not block."""

    __slots__ = ("_closing", "_descriptor", "_ended", "_eof", "_full", "_high", "_loop", "_lost", "_low", "_mask", "_paused",
                 "_protocol", "_selector", "_socket", "_unsent")  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, selector: Selector, connected: socket.socket, protocol: StreamProtocol) -> None:
        self._loop = loop
        self._selector = selector
        self._socket = connected
        self._descriptor = connected.fileno()
        self._protocol: StreamProtocol | None = protocol
        self._unsent = bytearray()
        self._high, self._low = WRITE_BUFFER_BYTES_HIGH, WRITE_BUFFER_BYTES_HIGH // 4
        self._mask = 0  # what the selector looks for
        self._full = False  # the protocol was told so
        self._paused = False
        self._ended = False  # the other side sends no more
        self._eof = False  # we send no more
        self._closing = False
        self._lost = False  # the protocol is told, or will be
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self) -> None:
        assert self._protocol is not None
        self._protocol.connection_made(self)
        try:
            self._watch()
        except OSError as error:  # the kernel watches no more of them
            self._lose(error)

    # What is ready

    def ready(self, found: int) -> None:
        """Implements proxy.selector.Watcher. An error or a hang-up is told to whoever waits, reader or writer."""
        try:
            if found & ~EPOLLOUT and self._mask & EPOLLIN:
                self._read()
            if found & ~EPOLLIN and self._unsent:
                self._send_on()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as defect:  # noqa: BLE001 - the connection ends, and the worker goes on
            self._report(defect)
            self._lose(defect)

    def _read(self) -> None:
        protocol = self._protocol
        try:
            count = self._socket.recv_into(READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        assert protocol is not None
        if count:
            protocol.data_received(bytes(READ[:count]))
            return
        self._ended = True
        if protocol.eof_received():
            self._watch()
        else:
            self.close()

    def _send_on(self) -> None:
        sent = self._send(self._unsent)
        if self._lost:
            return
        del self._unsent[:sent]
        if self._full and len(self._unsent) <= self._low:
            self._full = False
            assert self._protocol is not None
            self._tell(self._protocol.resume_writing)
        if not self._unsent:
            if self._closing:
                self._lose(None)
            elif self._eof:
                self._socket.shutdown(socket.SHUT_WR)
        self._watch()

    def _send(self, data: bytes | bytearray) -> int:
        """How much the socket took."""
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._lose(error)
        return 0

    def _watch(self) -> None:
        mask = (0 if self._paused or self._ended or self._closing else EPOLLIN) | (EPOLLOUT if self._unsent else 0)
        if mask != self._mask:
            self._mask = mask
            self._selector.watch(self._descriptor, self, mask)

    # Writing

    def write(self, data: bytes) -> None:
        """What does not go out now goes out when the socket takes it."""
        if self._eof:
            raise RuntimeError("nothing can be written behind write_eof")
        if self._lost:
            return
        if not self._unsent:
            sent = self._send(data)
            if sent == len(data) or self._lost:
                return
            self._unsent += memoryview(data)[sent:]
        else:
            self._unsent += data
        self._watch()
        self._tell_full()

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def write_eof(self) -> None:
        """Raises OSError when the connection was reset meanwhile."""
        if self._closing or self._eof:
            return
        self._eof = True
        if not self._unsent:
            self._socket.shutdown(socket.SHUT_WR)

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Raises ValueError unless high >= low >= 0."""
        if high is None:
            high = WRITE_BUFFER_BYTES_HIGH if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high}) must be >= low ({low}) must be >= 0")
        self._high, self._low = high, low
        self._tell_full()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def _tell_full(self) -> None:
        if not self._full and len(self._unsent) > self._high and self._protocol is not None:
            self._full = True
            self._tell(self._protocol.pause_writing)

    def _tell(self, protocol_method: Callable[[], None]) -> None:
        """What a protocol fails at there costs the connection no byte."""
        try:
            protocol_method()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as defect:  # noqa: BLE001 - as asyncio does
            self._report(defect)

    # Reading

    def pause_reading(self) -> None:
        self._paused = True
        self._watch()

    def resume_reading(self) -> None:
        self._paused = False
        self._watch()

    def is_reading(self) -> bool:
        return not (self._paused or self._closing)

    # The end

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """What was written still goes out."""
        self._closing = True
        if self._unsent:
            self._watch()
        else:
            self._lose(None)

    def abort(self) -> None:
        """At once, whatever was not sent yet."""
        self._lose(None)

    def _lose(self, reason: BaseException | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._unsent.clear()
        self._watch()
        self._loop.call_soon(self._tell_lost, reason)

    def _tell_lost(self, reason: BaseException | None) -> None:
        protocol, self._protocol = self._protocol, None
        assert protocol is not None
        try:
            protocol.connection_lost(reason)
        finally:
            self._socket.close()

    def _report(self, defect: BaseException) -> None:
        self._loop.call_exception_handler(
            {"message": "a protocol failed", "exception": defect, "transport": self, "protocol": self._protocol}
        )

    # Who it is

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "socket":
            return self._socket
        try:
            return {"peername": self._socket.getpeername, "sockname": self._socket.getsockname}[name]()
        except (KeyError, OSError):
            return default

    def get_protocol(self) -> StreamProtocol | None:
        return self._protocol
