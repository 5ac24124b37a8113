"""What a connection does with its call's sink, on real sockets."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.upstream.connection import Connection
from proxy.upstream.faults import UpstreamFault
from proxy.upstream.parser import Event, Parser

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Home:
    def __init__(self) -> None:
        self.kept: list[Connection] = []

    def put(self, connection: Connection) -> None:
        self.kept.append(connection)

    def gone(self, connection: Connection) -> None:
        if connection in self.kept:
            self.kept.remove(connection)


class Sink:
    """Does with the connection, or fails, as it is told, when events come."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.over = asyncio.Event()
        self.fault: UpstreamFault | None = None

    def on_events(self, events: list[Event]) -> None:
        if events[-1] is None:
            self.over.set()

    def on_fault(self, fault: UpstreamFault) -> None:
        self.fault = fault
        self.over.set()


class Full(Sink):
    """Its client has no room for what comes."""

    def on_events(self, events: list[Event]) -> None:
        self.connection.pause()
        super().on_events(events)


class Failing(Sink):
    def on_events(self, events: list[Event]) -> None:
        raise ArithmeticError


@pytest.fixture
async def home() -> Home:
    return Home()


@pytest.fixture
async def connection(home: Home) -> AsyncIterator[Connection]:
    """To an upstream that answers whatever comes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            writer.write(ANSWER)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(home, loop), *server.sockets[0].getsockname())
    yield connection
    connection.close()
    server.close()
    await asyncio.sleep(0.01)


async def ask(connection: Connection, sink: Sink) -> Sink:
    connection.begin(sink, Parser("GET", head_bytes_max=1000, headers_max=10))
    connection.write(b"GET / HTTP/1.1\r\n\r\n")
    connection.request_sent()
    async with asyncio.timeout(5):
        await sink.over.wait()
    return sink


async def test_one_that_its_last_bytes_paused_reads_the_answer_to_the_next_call(connection: Connection, home: Home) -> None:
    await ask(connection, Full(connection))
    assert (home.kept, connection.paused) == ([connection], False)
    assert (await ask(connection, Sink(connection))).fault is None


async def test_a_sink_that_fails_at_the_end_of_an_answer_is_told_of_an_end(connection: Connection, home: Home) -> None:
    complaints: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["exception"]))
    sink = await ask(connection, Failing(connection))
    assert sink.fault is not None
    assert (sink.fault.source, sink.fault.reason) == ("proxy", "internal")
    assert [type(each) for each in complaints] == [ArithmeticError]
    assert home.kept == []
