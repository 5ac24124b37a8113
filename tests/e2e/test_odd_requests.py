"""What odd or greedy clients do: each is bounded, told so, and costs nobody else anything."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.e2e.conftest import Proxy
from tests.e2e.differences import as_seen, at_upstream, request_of
from tests.e2e.raw_requests import LINE, REFUSED
from tests.e2e.test_smuggling import FAULT_IN_BODY, send
from tests.e2e.test_transparency_requests import Shape
from tests.e2e.wire import Origin, connect, exchange, read_answer, split_at

Start = Callable[..., Awaitable[Proxy]]
CALL = LINE + b"Content-Length: 2\r\n\r\n{}"


@pytest.fixture
def start(start_proxy: Start, origin: Origin) -> Start:
    async def before_origin(**changes: object) -> Proxy:
        return await start_proxy(default_upstream=f"http://127.0.0.1:{origin.port}", **changes)

    return before_origin


@pytest.mark.parametrize("one_write", [True, False])
@pytest.mark.parametrize("trailer", [b"Authorization: Bearer x", b"Expect: 100-continue", b"X-Sum: 1"])
async def test_trailers_do_not_become_headers_of_the_next_request(trailer: bytes, one_write: bool, origin: Origin, through: Proxy) -> None:
    """aiohttp's parser keeps the last trailer line and would put it before the next request's headers."""
    first = Shape(b"POST", b"/v1/x", (b"Host: p",), b"{}", 1, trailers=trailer + b"\r\n")
    second = Shape(b"POST", b"/v1/x", (b"Host: p", b"Authorization: Bearer mine"), b"{}")
    wire = await connect(through.port)
    await wire.write(*([first.raw + second.raw] if one_write else [first.raw]))
    await read_answer(wire)
    if not one_write and wire.end is None:
        await wire.write(second.raw)
    if wire.end is None:
        await read_answer(wire)
    host = b"127.0.0.1:%d" % origin.port
    sent = [at_upstream(request_of(shape.raw, b"{}"), host) for shape in (first, second)]
    assert [as_seen(received) for received in origin.requests] == sent[: len(origin.requests)]


@pytest.mark.parametrize("name", FAULT_IN_BODY)
async def test_a_fault_that_comes_later_in_a_body_is_answered_at_once(
    name: str, start: Start, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    """And is no line in our log: any client could fill it."""
    proxy = await start(request_timeout_s=8.0)
    wire = await connect(proxy.port)
    await send(wire, REFUSED[name], "byte by byte")
    async with asyncio.timeout(4):
        assert (await read_answer(wire))[-1].first[9:12] == b"400"
        await wire.ended()
    assert caplog.text == ""


async def test_a_head_has_a_bound_as_a_whole(start: Start, origin: Origin) -> None:
    proxy = await start()
    raw = LINE + b"".join(b"X-%d: %b\r\n" % (number, b"a" * 60_000) for number in range(200)) + b"Content-Length: 2\r\n\r\n{}"
    answer = (await exchange(proxy.port, *split_at(raw, range(0, len(raw), 100_000))))[-1]
    assert (answer.first[9:12], origin.requests) == (b"431", [])


async def test_a_head_has_a_deadline_of_its_own(start: Start) -> None:
    proxy = await start(head_timeout_s=1.0)
    wire = await connect(proxy.port)
    await wire.write(LINE + b"X-Drip: ")
    async with asyncio.timeout(5):
        while wire.end is None:
            await wire.write(b"a")
            await asyncio.sleep(0.1)
    assert wire.buffer.startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_drips_has_a_least_rate(start: Start, origin: Origin) -> None:
    proxy = await start(request_timeout_s=1.0, request_bytes_per_s_min=100)
    wire = await connect(proxy.port)
    await wire.write(LINE + b"Content-Length: 1000\r\n\r\n")
    async with asyncio.timeout(8):
        while wire.end is None and not wire.buffer:
            await wire.write(b"a")
            await asyncio.sleep(0.2)
    assert wire.buffer.startswith(b"HTTP/1.1 408 ")


async def test_connections_over_the_bound_are_not_held(start: Start, origin: Origin) -> None:
    proxy = await start(connections_max=3)
    wires = [await connect(proxy.port) for _ in range(10)]
    async with asyncio.timeout(5):
        while sum(wire.end is None for wire in wires) > 3:
            await asyncio.sleep(0.05)


async def test_a_refused_upload_does_not_hold_its_connection(start: Start, origin: Origin) -> None:
    proxy = await start(request_bytes_max=10_000)
    wire = await connect(proxy.port)
    await wire.write(LINE + b"Content-Length: 10001\r\n\r\n")
    await read_answer(wire)
    async with asyncio.timeout(5):
        await wire.ended()


@pytest.mark.parametrize("pieces", [2, 50])
async def test_an_upload_in_pieces_leaves_its_upstream_connection_to_the_next(pieces: int, start: Start, origin: Origin) -> None:
    proxy = await start()
    wire = await connect(proxy.port)
    raw = LINE + b"Content-Length: 200\r\n\r\n" + b"a" * 200
    for _ in range(5):
        await wire.write(*split_at(raw, [len(raw) - 200 * part // pieces for part in range(pieces + 1)]))
        await read_answer(wire)
    assert len(origin.wires) == 1


async def test_the_refusal_of_a_large_head_says_so(start: Start) -> None:
    proxy = await start()
    answer = (await exchange(proxy.port, LINE + b"X: " + b"a" * 70_000 + b"\r\n\r\n"))[-1]
    assert answer.first[9:12] == b"431"


async def test_a_request_behind_one_that_says_close_does_not_cost_that_one(origin: Origin, through: Proxy) -> None:
    raw = LINE + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}"
    answer = (await exchange(through.port, raw + CALL))[-1]
    assert (answer.body, len(origin.requests)) == (b"ok", 1)
