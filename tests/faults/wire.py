"""A TCP connection that can be slowed, throttled, sliced, silenced and broken, each direction for itself, while it runs."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

READ_BYTES = 64 << 10


@dataclass
class Flow:
    """What happens to the bytes of one direction; may be changed at any time."""

    latency_s: float = 0.0
    bytes_per_s: float | None = None
    slice_bytes: int | None = None  # what one write holds at most
    reset_after_bytes: int | None = None  # counted down; then both sides get a RST
    _open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._open.set()

    def silence(self) -> None:
        """Nothing arrives, nothing is refused: a black hole. What was sent into it arrives once it is over."""
        self._open.clear()

    def speak(self) -> None:
        self._open.set()

    def pieces(self, data: bytes) -> Iterator[bytes]:
        size = self.slice_bytes or len(data)
        return (data[start : start + size] for start in range(0, len(data), size))

    async def pass_on(self, size: int) -> None:
        """Returns when a piece of this size may go. Raises ConnectionResetError."""
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        if self.bytes_per_s:
            await asyncio.sleep(size / self.bytes_per_s)
        await self._open.wait()
        if self.reset_after_bytes is not None:
            self.reset_after_bytes -= size
            if self.reset_after_bytes < 0:
                self.reset_after_bytes = None
                raise ConnectionResetError


class Wire:
    """Listens on `port` of loopback and passes every connection on to the target."""

    def __init__(self, host: str, port: int) -> None:
        self.up, self.down = Flow(), Flow()  # to the target, and back from it
        self.refusing = False  # new connections are reset at once
        self.accepted = 0
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def reset(self) -> None:
        """A RST to both sides of every open connection."""
        for writer in list(self._writers):
            _reset(writer)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            if self.refusing:
                raise ConnectionRefusedError
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        ends = (writer, far_writer)
        self._writers.update(ends)
        pumps = [asyncio.create_task(_pump(reader, far_writer, self.up)), asyncio.create_task(_pump(far_reader, writer, self.down))]
        self._pumps.update(pumps)
        try:
            await asyncio.gather(*pumps)
            for end in ends:
                end.close()
        except (OSError, asyncio.CancelledError):
            for end in ends:
                _reset(end)
        finally:
            for pump in pumps:
                pump.cancel()
            self._pumps.difference_update(pumps)
            self._writers.difference_update(ends)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: Flow) -> None:
    while data := await reader.read(READ_BYTES):
        for piece in flow.pieces(data):
            await flow.pass_on(len(piece))
            writer.write(piece)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
