"""Raw sockets on both sides of a real worker: what the upstream and the client see, byte by byte."""

import asyncio
import contextlib
import dataclasses
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson
import pytest
from aiohttp import web

from clearpane.settings import Settings
from proxy.recorder.facts import facts_of
from proxy.recorder.note import Kind, Note, Notes, encode
from proxy.server import ProxyServer
from proxy.worker import build, loop_of
from tests.e2e.system import Process, free_port
from tests.e2e.wire import Origin, hang_up

WAIT_S = 10.0


def pytest_asyncio_loop_factories(config: pytest.Config) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """A worker's loop for every test of this folder, worker and upstream and client: `--loop uvloop` is the other one."""
    name = config.getoption("loop")
    return {name: lambda: loop_of(Settings(loop=name))}


class MemorySpool:
    """Keeps what a call hands to the recorder, as the recorder would state it."""

    def __init__(self) -> None:
        self.admitted: list[dict[str, Any]] = []
        self.starts: list[dict[str, Any]] = []
        self.records: list[tuple[dict[str, Any], bytes, bytes]] = []
        self._sequence = -1

    def admit(self) -> int:
        self._sequence += 1
        return self._sequence

    def send(self, note: tuple[Any, ...]) -> None:
        (sent,) = Notes().feed(encode(note))
        facts, request, response = facts_of(Note(*sent), "host")
        stated = orjson.loads(orjson.dumps(facts))
        if sent[0] == Kind.ADMITTED:
            self.admitted.append(stated)
        elif sent[0] == Kind.STARTED:
            self.starts.append(stated)
        else:
            self.records.append((stated, request, response))


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Upstream:
    """A raw server: `script` is run per connection; what it read stands in `received`."""

    port: int = 0
    script: Script | None = None
    received: list[bytearray] = field(default_factory=list)
    closed: list[float] = field(default_factory=list)
    connections: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        self.tasks.add(asyncio.create_task(self.serve(reader, writer)))

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for writer in self.writers:
            with contextlib.suppress(AttributeError):  # Python 3.11 has taken a closed TLS transport apart
                writer.transport.abort()
        await asyncio.sleep(0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        assert self.script is not None
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self.script(reader, writer)
        self.closed.append(asyncio.get_running_loop().time())
        writer.close()

    def answers(self, *pieces: bytes, pause_s: float = 0.0, reset: bool = False, keep: bool = False) -> None:
        """Reads one request, then sends the pieces; ends with FIN, RST, or waits for the other side."""

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                self.received.append(bytearray())
                await self.read_request(reader, self.received[-1])
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    if pause_s:
                        await asyncio.sleep(pause_s)
                if reset:
                    await asyncio.sleep(0.05)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                if not keep:
                    return

        self.script = script

    @staticmethod
    async def read_request(reader: asyncio.StreamReader, into: bytearray) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        into += head
        lowered = head.lower()
        if b"transfer-encoding: chunked" in lowered:
            while not into.endswith(b"0\r\n\r\n"):
                into += await reader.readuntil(b"\r\n")
        elif b"content-length: " in lowered:
            into += await reader.readexactly(int(lowered.split(b"content-length: ")[1].split(b"\r\n")[0]))


@dataclass
class Proxy:
    port: int
    server: ProxyServer
    spool: MemorySpool

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)

    async def call(self, request: bytes) -> bytes:
        """Everything that comes back until the proxy closes; the request should say `Connection: close`."""
        reader, writer = await self.connect()
        writer.write(request)
        async with asyncio.timeout(WAIT_S):
            answer = await reader.read(-1)
        writer.close()
        return answer

    async def record(self, number: int = 0) -> tuple[dict[str, Any], bytes, bytes]:
        async with asyncio.timeout(WAIT_S):
            while len(self.spool.records) <= number:
                await asyncio.sleep(0.005)
        return self.spool.records[number]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    found = Upstream()
    server = await asyncio.start_server(found.accept, "127.0.0.1", 0, limit=1 << 24)
    found.port = server.sockets[0].getsockname()[1]
    yield found
    server.close()
    await found.stop()


@pytest.fixture
async def start_proxy(upstream: Upstream) -> AsyncIterator[Callable[..., Awaitable[Proxy]]]:
    runners: list[tuple[web.ServerRunner, ProxyServer]] = []

    async def start(**changes: Any) -> Proxy:
        settings = dataclasses.replace(Settings(default_upstream=f"http://127.0.0.1:{upstream.port}"), **changes)
        spool = MemorySpool()
        server = build(settings, spool, "pepper")
        server.start()
        runner = web.ServerRunner(server.web_server, shutdown_timeout=0.2)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        runners.append((runner, server))
        port = site._server.sockets[0].getsockname()[1]
        return Proxy(port, server, spool)

    yield start
    for runner, server in runners:
        await server.drain(0.1)
        await runner.cleanup()


@pytest.fixture
async def proxy(start_proxy: Callable[..., Awaitable[Proxy]]) -> Proxy:
    return await start_proxy()


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """An upstream that reads whole requests and answers `OK` until told otherwise."""
    found = Origin()
    server = await found.start()
    yield found
    server.close()
    await found.stop()


@pytest.fixture
async def through(start_proxy: Callable[..., Awaitable[Proxy]], origin: Origin) -> Proxy:
    """A proxy before `origin`."""
    return await start_proxy(default_upstream=f"http://127.0.0.1:{origin.port}")


class Stoppable(Protocol):
    def stop(self) -> None: ...


@pytest.fixture
async def stop_after() -> AsyncIterator[list[Stoppable]]:
    """What a test puts in is stopped behind it."""
    started: list[Stoppable] = []
    yield started
    for each in started:
        each.stop()


@dataclass
class Worker:
    """A worker as a process of its own, whose memory can be looked at."""

    port: int
    pid: int

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.fixture
async def worker(tmp_path: Path, origin: Origin) -> AsyncIterator[Worker]:
    """A worker before `origin`."""
    port = free_port()
    process = Process(
        tmp_path, "proxy", "clearpane.cli", "proxy", "--listen", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0", "--spool-only",
        "--data", str(tmp_path / "data"), "--default-upstream", f"http://127.0.0.1:{origin.port}",
    )  # fmt: skip
    await process.ready()
    yield Worker(port, process.children("proxy.worker")[0])
    await hang_up()
    process.stop()


WEBSOCKET_KEY = b"sk-a-key-of-the-caller-0123456789"
ASK = (
    b"GET /v1/realtime?model=gpt-realtime HTTP/1.1\r\nHost: p\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.%b\r\n\r\n" % WEBSOCKET_KEY
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Odd: 1\r\nSec-WebSocket-Accept: x\r\n\r\n"

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Raw:
    """Raw sockets at both ends of one WebSocket; `head` is the answer's, `asked` the request's."""

    proxy: Proxy
    client: Ends
    server: Ends
    head: bytes
    asked: bytes

    def close(self) -> None:
        for _, writer in (self.client, self.server):
            writer.transport.abort()


Open = Callable[..., Awaitable[Raw]]


@pytest.fixture
async def open_raw(upstream: Upstream, start_proxy: Callable[..., Awaitable[Proxy]]) -> AsyncIterator[Open]:
    opened: list[Raw] = []

    async def open_one(switch: bytes = SWITCH, proxy: Proxy | None = None, **settings: Any) -> Raw:
        asked: asyncio.Future[tuple[bytes, Ends]] = asyncio.get_running_loop().create_future()
        over = asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(switch)
            asked.set_result((head, (reader, writer)))
            await over.wait()

        upstream.script = script
        proxy = proxy or await start_proxy(**settings)
        reader, writer = await proxy.connect()
        writer.write(ASK)
        async with asyncio.timeout(WAIT_S):
            head = await reader.readuntil(b"\r\n\r\n")
            seen, server = await asked
        opened.append(Raw(proxy, (reader, writer), server, head, seen))
        return opened[-1]

    yield open_one
    for raw in opened:
        raw.close()
