"""Raw HTTP/1.1 on sockets, read by rules of this file alone: what came, byte by byte, and how it ended.

Nothing here is shared with the proxy, so a mistake of its parsers cannot hide in the tests.
"""

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

WAIT_S = 20.0
LINGER_OFF = b"\1\0\0\0\0\0\0\0"


class Ended(Exception):
    """The connection ended before what was asked for had come; `rest` is what had."""

    def __init__(self, rest: bytes) -> None:
        super().__init__(f"the connection ended after {rest[-80:]!r}")
        self.rest = rest


class Wire(asyncio.Protocol):
    """One end of a connection. Every byte is kept, also those that a reset follows. `end`: None, `fin` or `reset`."""

    def __init__(self, opened: "Callable[[Wire], None] | None" = None) -> None:
        self.end: str | None = None
        self.buffer = bytearray()
        self._opened = opened
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self._opened is not None:
            self._opened(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self._changed.set()

    def eof_received(self) -> bool:
        self.end = self.end or "fin"
        self._changed.set()
        return True  # our side stays open until we close it

    def connection_lost(self, exc: Exception | None) -> None:
        self.end = self.end or ("fin" if exc is None else "reset")
        self._changed.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def write(self, *pieces: bytes) -> None:
        """Each piece is a write of its own, which the other side has read before the next."""
        for piece in pieces:
            if self.transport.is_closing():
                return
            self.transport.write(piece)
            for _ in range(2):  # one turn for the bytes to arrive, one for the other side to read them
                await asyncio.sleep(0)
            await self._writable.wait()

    def take(self, count: int) -> bytes:
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    async def exactly(self, count: int) -> bytes:
        """Raises Ended."""
        while len(self.buffer) < count:
            await self._more()
        return self.take(count)

    async def until(self, mark: bytes) -> bytes:
        """Raises Ended."""
        while (at := self.buffer.find(mark)) < 0:
            await self._more()
        return self.take(at + len(mark))

    async def sees(self, mark: bytes) -> None:
        """Waits until this has come, and leaves it. Raises Ended."""
        while mark not in self.buffer:
            await self._more()

    async def rest(self) -> bytes:
        while self.end is None:
            await self._changed_once()
        return self.take(len(self.buffer))

    async def ended(self) -> None:
        while self.end is None:
            await self._changed_once()

    async def _more(self) -> None:
        if self.end is not None:
            raise Ended(self.take(len(self.buffer)))
        await self._changed_once()

    async def _changed_once(self) -> None:
        self._changed.clear()
        async with asyncio.timeout(WAIT_S):
            await self._changed.wait()

    def close(self) -> None:
        self.transport.close()

    def half_close(self) -> None:
        self.transport.write_eof()

    def reset(self) -> None:
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_OFF)
        self.transport.abort()


@dataclass
class Message:
    """`body` is as on the wire, framing included; `payload` without; `whole`: it ended as its framing says."""

    first: bytes
    lines: list[bytes]
    body: bytes = b""
    payload: bytes = b""
    trailers: list[bytes] = field(default_factory=list)
    whole: bool = False

    def values(self, name: bytes) -> list[bytes]:
        return [value.strip(b" \t") for found, _, value in (line.partition(b":") for line in self.lines) if found.lower() == name]


def parse_lines(head: bytes) -> Message:
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    return Message(first, lines)


async def read_request(wire: Wire) -> Message:
    """Raises Ended."""
    message = parse_lines(await wire.until(b"\r\n\r\n"))
    if message.values(b"transfer-encoding"):
        await _read_chunks(wire, message)
    elif lengths := message.values(b"content-length"):
        message.body = message.payload = await wire.exactly(int(lengths[0]))
    message.whole = True
    return message


async def read_answer(wire: Wire, method: bytes = b"GET") -> list[Message]:
    """Interim answers and the final one. What a broken connection left is in the last; a broken head is its `first`."""
    found: list[Message] = []
    while not found or found[-1].first[9:10] == b"1":
        try:
            found.append(parse_lines(await wire.until(b"\r\n\r\n")))
        except Ended as ended:
            return [*found, Message(ended.rest, [])]
    message = found[-1]
    try:
        await _read_body(wire, message, method)
    except Ended as ended:
        message.body += ended.rest
    return found


async def _read_body(wire: Wire, message: Message, method: bytes) -> None:
    if method == b"HEAD" or message.first[9:12] in {b"204", b"304"}:
        pass
    elif message.values(b"transfer-encoding"):
        await _read_chunks(wire, message)
    elif lengths := message.values(b"content-length"):
        message.body = message.payload = await wire.exactly(int(lengths[0]))
    else:
        message.body = message.payload = await wire.rest()
        message.whole = wire.end == "fin"
        return
    message.whole = True


async def _read_chunks(wire: Wire, message: Message) -> None:
    raw, payload = [], []
    try:
        while True:
            raw.append(line := await wire.until(b"\r\n"))
            size = int(line.split(b";")[0], 16)
            if not size:
                break
            raw.append(chunk := await wire.exactly(size + 2))
            payload.append(chunk[:-2])
        while line != b"\r\n":
            raw.append(line := await wire.until(b"\r\n"))
            message.trailers.append(line.removesuffix(b"\r\n"))
        message.trailers.pop()
    finally:
        message.body, message.payload = b"".join(raw), b"".join(payload)


_clients: set[Wire] = set()


async def connect(port: int) -> Wire:
    _, wire = await asyncio.get_running_loop().create_connection(Wire, "127.0.0.1", port)
    _clients.add(wire)
    return wire


async def hang_up() -> None:
    """Ends whatever a test has left open, when it failed for instance."""
    while _clients:
        _clients.pop().transport.abort()
    await asyncio.sleep(0)


async def exchange(port: int, *pieces: bytes, method: bytes = b"GET") -> list[Message]:
    """One request in these pieces on a connection of its own; the answers that came."""
    wire = await connect(port)
    await wire.write(*pieces)
    answers = await read_answer(wire, method)
    wire.close()
    return answers


@dataclass(frozen=True)
class Answer:
    """What an upstream sends, each piece in a write of its own, and what it does then: `keep`, `fin`, `reset`, `stall`."""

    pieces: Sequence[bytes]
    then: str = "keep"


OK = Answer([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"])


class Origin:
    """An upstream that reads whole requests, keeps them, and answers each by `answer`."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[Message] = []
        self.wires: list[Wire] = []
        self.answer: Callable[[Message], Answer] = lambda request: OK
        self.serve: Callable[[Wire], Awaitable[None]] = self.serve_calls
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> asyncio.Server:
        server = await asyncio.get_running_loop().create_server(lambda: Wire(self._opened), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        for wire in self.wires:
            wire.transport.abort()
        await hang_up()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def _opened(self, wire: Wire) -> None:
        self.wires.append(wire)
        self._tasks.add(asyncio.create_task(self._serve(wire)))

    async def _serve(self, wire: Wire) -> None:
        try:
            await self.serve(wire)
        except Ended:
            pass
        finally:
            wire.close()

    async def serve_calls(self, wire: Wire) -> None:
        then = "keep"
        while then == "keep":
            request = await read_request(wire)
            self.requests.append(request)
            answer = self.answer(request)
            await wire.write(*answer.pieces)
            then = answer.then
        if then == "reset":
            wire.reset()
        elif then == "fin":
            wire.close()
        else:
            await wire.ended()


def joined(*lines: bytes) -> bytes:
    """A head of these lines."""
    return b"\r\n".join([*lines, b"", b""])


def split_at(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]
