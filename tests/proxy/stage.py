"""A TCP connection's end on a loop of asyncio's or of ours: what its protocol is told while a scene is played."""

import asyncio
import selectors
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from proxy.loop import Loop
from proxy.transport import Transport

LARGE = 8 << 20
TIMEOUT_S = 10.0
MAKES: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio's": lambda: asyncio.SelectorEventLoop(selectors.EpollSelector()),
    "ours": Loop,
}


class Told(asyncio.Protocol):
    """Writes down what it is told; consecutive pieces of data as one."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.data = b""
        self.keep = False  # what eof_received answers
        self.lost = asyncio.Event()
        self.changed = asyncio.Event()
        self.fails_at = ""
        self.failure: type[BaseException] = ArithmeticError
        self.ends: Told | None = None  # aborted with the first data

    def _tell(self, event: Any) -> None:
        self.events.append(event)
        self.changed.set()
        if self.fails_at and self.fails_at in str(event):
            raise self.failure(self.fails_at)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._tell("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self.events[-1] != "data":
            self._tell("data")
        self.changed.set()
        if self.ends is not None:
            self.ends.transport.abort()

    def eof_received(self) -> bool:
        self._tell("eof")
        return self.keep

    def pause_writing(self) -> None:
        self._tell("full")

    def resume_writing(self) -> None:
        self._tell("taking")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set()
        self._tell(f"lost: {type(exc).__name__}")

    async def until(self, done: Callable[[], object]) -> None:
        while not done():
            self.changed.clear()
            await self.changed.wait()


Scene = Callable[[Told, socket.socket], Awaitable[object]]


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection; the first does not block."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    ours.setblocking(False)
    theirs.settimeout(TIMEOUT_S)
    return ours, theirs


def play(make: Callable[[], asyncio.AbstractEventLoop], scene: Scene) -> tuple[list[Any], bytes, object, list[str]]:
    """Events, data, what the scene saw, what the loop had to complain of."""
    complaints: list[str] = []

    async def run() -> tuple[list[Any], bytes, object]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(type(context["exception"]).__name__))
        ours, theirs = pair()
        with theirs:
            _, told = await loop.connect_accepted_socket(Told, ours)
            assert isinstance(told.transport, Transport) == isinstance(loop, Loop)
            async with asyncio.timeout(TIMEOUT_S):
                seen = await scene(told, theirs)
                if not told.lost.is_set():
                    told.transport.abort()
                    await told.lost.wait()
                await asyncio.sleep(0)
            assert ours.fileno() < 0
        return told.events, told.data, seen

    with asyncio.Runner(loop_factory=make) as runner:
        return *runner.run(run()), complaints


async def read_all(theirs: socket.socket) -> int:
    def read() -> int:
        count = 0
        while piece := theirs.recv(1 << 20):
            count += len(piece)
        return count

    return await asyncio.to_thread(read)


def reset(theirs: socket.socket) -> None:
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
