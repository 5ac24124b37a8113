"""A loop may bring many reads of one socket in one turn (uvloop does), before any task has run: a request is the same in all."""

from collections.abc import Awaitable, Callable

import pytest

from proxy import client, transport
from tests.e2e.conftest import Proxy
from tests.e2e.wire import OK, Origin, Wire, connect, read_answer

Start = Callable[..., Awaitable[Proxy]]

# A read is full and another follows in the same turn: it takes more bytes than this.
READ_BYTES = 4 << 10
HEAD_BYTES_MAX = 12 << 10
LARGE = b"x" * (1 << 20)
LINE = b"POST /v1/x HTTP/1.1\r\nHost: p\r\n"
LENGTH = LINE + b"Content-Length: %d\r\n\r\n" % len(LARGE) + LARGE
CHUNKED = LINE + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(LARGE), LARGE)


@pytest.fixture(params=[READ_BYTES, 256 << 10])
def read_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    for module in (client, transport):  # by uvloop, and by our own
        monkeypatch.setattr(module, "READ", memoryview(bytearray(request.param)))
    return int(request.param)


async def at_once(port: int, data: bytes) -> Wire:
    """A client whose bytes are all in its socket, as many as go in, before the loop turns."""
    wire = await connect(port)
    wire.transport.write(data)
    return wire


async def served(wire: Wire) -> bytes:
    return (await read_answer(wire))[-1].first[9:12]


@pytest.mark.usefixtures("read_bytes")
@pytest.mark.parametrize("request_bytes", [LENGTH, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("calls_before", [0, 1])
async def test_a_large_body_is_no_large_head(calls_before: int, request_bytes: bytes, start_proxy: Start, origin: Origin) -> None:
    proxy = await start_proxy(default_upstream=f"http://127.0.0.1:{origin.port}", head_bytes_max=HEAD_BYTES_MAX)
    wire = await at_once(proxy.port, (LINE + b"Content-Length: 2\r\n\r\n{}") * calls_before + request_bytes)
    assert [await served(wire) for _ in range(calls_before + 1)] == [b"200"] * (calls_before + 1)
    assert origin.requests[-1].payload == LARGE


@pytest.mark.usefixtures("read_bytes")
async def test_requests_behind_a_large_one_are_served_in_their_order(start_proxy: Start, origin: Origin) -> None:
    proxy = await start_proxy(default_upstream=f"http://127.0.0.1:{origin.port}", head_bytes_max=HEAD_BYTES_MAX)
    wire = await at_once(proxy.port, LENGTH * 4)
    assert [await served(wire) for _ in range(4)] == [b"200"] * 4
    assert [request.payload for request in origin.requests] == [LARGE] * 4


@pytest.mark.usefixtures("read_bytes")
@pytest.mark.parametrize("over", [False, True])
async def test_a_large_head_is_one_however_it_is_read(over: bool, start_proxy: Start, origin: Origin) -> None:
    limits = {"head_bytes_max": 128 << 10, "header_bytes_max": 80 << 10, "headers_max": 20}
    proxy = await start_proxy(default_upstream=f"http://127.0.0.1:{origin.port}", **limits)
    fat = b"".join(b"X-%d: %b\r\n" % (number, b"a" * (70 << 10)) for number in range(1 + over))
    wire = await at_once(proxy.port, LINE + fat + b"Content-Length: 2\r\n\r\n{}")
    assert await served(wire) == (b"431" if over else b"200")
    assert len(origin.requests) == (not over)


@pytest.mark.usefixtures("read_bytes")
async def test_nothing_is_sent_behind_an_early_answer(start_proxy: Start, origin: Origin) -> None:
    """What of the body nobody wants is read for a while, so that the client comes to read the answer; it is no head either."""
    wire = await answered_early(CHUNKED, start_proxy, origin)
    wire.transport.write(CHUNKED[len(CHUNKED) // 2 :])
    assert (await wire.rest(), wire.end) == (b"", "fin")


@pytest.mark.usefixtures("read_bytes")
async def test_a_request_may_follow_a_body_that_nobody_wanted(start_proxy: Start, origin: Origin) -> None:
    wire = await answered_early(LENGTH, start_proxy, origin)
    wire.transport.write(LENGTH[len(LENGTH) // 2 :] + LENGTH[:-1])
    assert await served(wire) == b"200"


async def answered_early(request_bytes: bytes, start_proxy: Start, origin: Origin) -> Wire:
    """A client that has its answer, and has sent one half of the request."""
    origin.serve = answer_at_the_head
    proxy = await start_proxy(default_upstream=f"http://127.0.0.1:{origin.port}", head_bytes_max=HEAD_BYTES_MAX)
    wire = await at_once(proxy.port, request_bytes[: len(request_bytes) // 2])
    assert await served(wire) == b"200"
    return wire


async def answer_at_the_head(wire: Wire) -> None:
    await wire.until(b"\r\n\r\n")
    await wire.write(*OK.pieces)
    await wire.ended()


@pytest.mark.parametrize("cut", range(1, 4))
async def test_a_connection_is_idle_behind_a_head_whose_end_came_in_two(cut: int, start_proxy: Start, origin: Origin) -> None:
    proxy = await start_proxy(default_upstream=f"http://127.0.0.1:{origin.port}")
    wire = await connect(proxy.port)
    request = LINE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    end = request.index(b"\r\n\r\n") + cut
    for _ in range(2):
        await wire.write(request[:end], request[end:])
        assert await served(wire) == b"200"
        (connection,) = proxy.server._connections
        assert not connection.begun
