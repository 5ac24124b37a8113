"""What one side does not read: it bounds memory and time, and hides neither an end nor a reset from the other side."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from proxy.client import ClientConnection
from tests.e2e.conftest import ASK, SWITCH, WAIT_S, Proxy
from tests.e2e.system import free_port
from tests.e2e.wire import OK, Answer, Origin, Wire, connect, read_answer, read_request

Start = Callable[..., Awaitable[Proxy]]

GET = b"GET /v1/x HTTP/1.1\r\nHost: p\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"1000\r\n" + b"x" * 4096 + b"\r\n"
# Above it our transports tell their protocols that they are full.
WRITE_BUFFER_BYTES = 64 << 10
SOCKET_BYTES = 8 << 10
GONE_S_MAX = 0.5


@pytest.fixture
def start(start_proxy: Start, origin: Origin) -> Start:
    async def before_origin(**changes: object) -> Proxy:
        return await start_proxy(**{"default_upstream": f"http://127.0.0.1:{origin.port}", **changes})

    return before_origin


def narrow(sender: asyncio.Transport | None, receiver: asyncio.Transport | None) -> None:
    """Their kernels take little on this way; the other way is as ever."""
    for transport, option in ((sender, socket.SO_SNDBUF), (receiver, socket.SO_RCVBUF)):
        if transport is not None:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)


async def until(done: Callable[[], object], timeout_s: float = WAIT_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not done():
            await asyncio.sleep(0.01)


async def connect_unread(proxy: Proxy) -> tuple[Wire, ClientConnection]:
    """A client that reads nothing, and what the worker has of it."""
    wire = await connect(proxy.port)
    wire.transport.pause_reading()
    await until(lambda: proxy.server._connections)
    (connection,) = proxy.server._connections
    assert connection.transport is not None
    narrow(connection.transport, wire.transport)
    return wire, connection


def unsent(connection: ClientConnection) -> int:
    return connection.transport.get_write_buffer_size() if connection.transport is not None else 0


# Clients that do not read


@pytest.mark.parametrize("ending", ["the upstream breaks", "the client closes its half"])
async def test_what_is_left_for_a_client_that_takes_nothing_is_given_up(ending: str, start: Start, origin: Origin) -> None:
    """Less is left than a transport tells of, and nobody but the worker ends that connection."""
    proxy = await start(write_timeout_s=1.0)
    client, connection = await connect_unread(proxy)

    async def serve(wire: Wire) -> None:
        await read_request(wire)
        await wire.write(STREAM)
        while not unsent(connection):
            await wire.write(CHUNK)
            await asyncio.sleep(0.001)
        if ending == "the upstream breaks":
            wire.reset()
        else:
            client.half_close()
            await wire.ended()

    origin.serve = serve
    await client.write(GET)
    facts, _, _ = await proxy.record()
    assert not connection.stuck
    await until(lambda: not proxy.server._connections)
    assert facts["response"]["end"] == ("upstream_error" if ending == "the upstream breaks" else "client_disconnected")


async def test_a_client_that_reads_slowly_all_the_time_is_not_given_up(start: Start, origin: Origin) -> None:
    proxy = await start(write_timeout_s=1.0)
    origin.answer = lambda request: Answer([b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n" + b"x" * 4_000_000])
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", proxy.port))
        await loop.sock_sendall(client, GET)
        until_s = loop.time() + 4.0
        while loop.time() < until_s:
            assert await loop.sock_recv(client, 2000)
            await asyncio.sleep(0.05)
        (connection,) = proxy.server._connections
        assert connection.stuck
    assert (await proxy.record())[0]["response"]["error"]["type"] == "client_disconnected"


@pytest.mark.parametrize("request_head", [b"GET /healthz HTTP/1.1\r\nHost: p\r\n\r\n", GET], ids=["health", "refusals"])
async def test_requests_wait_while_answers_of_our_own_are_not_taken(request_head: bytes, start: Start) -> None:
    """They are no idle connection, nor a head that is late, however long that takes."""
    proxy = await start(default_upstream=f"http://127.0.0.1:{free_port()}", head_timeout_s=1.0, keepalive_timeout_s=1.0)
    client, connection = await connect_unread(proxy)
    count = 10_000 if request_head is not GET else 1000
    writing = asyncio.create_task(client.write(request_head * count))
    await until(lambda: connection.stuck)
    await asyncio.sleep(2.5)
    assert unsent(connection) < WRITE_BUFFER_BYTES + len(CHUNK)
    client.transport.resume_reading()
    for _ in range(count):
        (answer,) = await read_answer(client)
        assert answer.first[9:12] == (b"502" if request_head is GET else b"200")
    await writing


async def test_a_client_with_no_room_for_the_last_bytes_does_not_stop_the_upstreams_next_call(start: Start, origin: Origin) -> None:
    """For these the connection to the upstream is paused when it goes back to the others."""
    proxy = await start()
    client, connection = await connect_unread(proxy)

    async def serve(wire: Wire) -> None:
        await read_request(wire)
        await wire.write(STREAM)
        while unsent(connection) < 2 * len(CHUNK):
            await wire.write(CHUNK)
            await asyncio.sleep(0.001)
        await wire.write(CHUNK * 15 + b"0\r\n\r\n")  # at once, and more than there is room for
        origin.serve = origin.serve_calls
        await origin.serve_calls(wire)

    origin.serve = serve
    await client.write(GET)
    await until(lambda: connection.stuck)
    for _ in range(3):
        other = await connect(proxy.port)
        await other.write(GET)
        assert (await read_answer(other))[-1].body == b"ok"
    client.transport.resume_reading()
    assert (await read_answer(client))[-1].whole


# Clients that are not read


@pytest.mark.parametrize(
    "request_bytes",
    [b"POST /v1/x HTTP/1.1\r\nHost: p\r\nContent-Length: 20000000\r\n\r\n" + b"x" * 19_999_999, GET + GET * 10_000],
    ids=["upload", "pipeline"],
)
async def test_a_client_that_goes_while_nobody_reads_it_is_gone_at_the_upstream(request_bytes: bytes, start: Start, origin: Origin) -> None:
    proxy = await start()

    async def serve(wire: Wire) -> None:
        wire.transport.pause_reading()
        await asyncio.Event().wait()

    origin.serve = serve
    client = await connect(proxy.port)
    client.transport.write(request_bytes)
    await until(lambda: proxy.server._relays)
    (connection,) = proxy.server._connections
    await until(lambda: connection.transport is not None and not connection.transport.is_reading())
    client.reset()
    await until(lambda: not proxy.server._pool.open_connections, GONE_S_MAX)
    assert (await proxy.record())[0]["response"]["end"] == "client_disconnected"


# Upstreams that do not read


@pytest.mark.parametrize(("framing", "end"), [(b"Content-Length: 100", "upstream_error"), (b"Connection: close", "complete")])
async def test_an_upstream_that_ends_and_takes_no_more_of_the_request_has_ended(
    framing: bytes, end: str, start: Start, origin: Origin
) -> None:
    proxy = await start()

    async def serve(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        wire.transport.pause_reading()
        await until(lambda: all(connection._transport.get_write_buffer_size() for connection in proxy.server._pool._open))
        await wire.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\nhello")
        wire.half_close()
        await asyncio.Event().wait()

    origin.serve = serve
    client = await connect(proxy.port)
    client.transport.write(b"POST /v1/x HTTP/1.1\r\nHost: p\r\nContent-Length: 20000000\r\n\r\n" + b"x" * 19_999_999)
    async with asyncio.timeout(WAIT_S):
        (answer,) = await read_answer(client)
    assert answer.body == b"hello"
    assert (await proxy.record())[0]["response"]["end"] == end


async def test_an_upstream_that_answers_what_it_has_not_taken_is_not_asked_again(start: Start, origin: Origin) -> None:
    """It closes such a connection as a rule, and the next call would get the reset."""
    proxy = await start()
    post = b"POST /v1/x HTTP/1.1\r\nHost: p\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000

    async def serve(wire: Wire) -> None:
        narrow(None, wire.transport)
        while True:
            if b"POST" in await wire.until(b"\r\n\r\n"):
                wire.transport.pause_reading()
            await wire.write(*OK.pieces)

    origin.serve = serve
    client = await connect(proxy.port)
    await client.write(GET)
    await read_answer(client)
    (kept,) = proxy.server._pool._open
    narrow(kept._transport, None)
    await client.write(post)
    assert (await read_answer(client))[-1].body == b"ok"
    await client.write(GET)
    assert (await read_answer(client))[-1].body == b"ok"
    assert len(origin.wires) == 2


async def test_a_websocket_whose_upstream_takes_no_more_leaves_no_connection_behind(
    start: Start, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.upstream.connection.FINISH_S", 1.0)
    proxy = await start()

    async def serve(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        narrow(None, wire.transport)
        wire.transport.pause_reading()
        await wire.write(SWITCH)
        for connection in proxy.server._pool._open:
            narrow(connection._transport, None)
        await until(lambda: all(connection._transport.get_write_buffer_size() for connection in proxy.server._pool._open))
        wire.transport.write(b"\x88\x00" + b"z" * 40_000_000)
        await asyncio.Event().wait()

    origin.serve = serve
    client, connection = await connect_unread(proxy)
    await client.write(ASK)
    await until(lambda: connection.tunnel is not None)
    client.transport.write((b"\x82\xfe\x03\xe8abcd" + b"y" * 1000) * 20_000)
    await until(lambda: connection.stuck)
    client.reset()
    await until(lambda: not proxy.server._pool.open_connections)
