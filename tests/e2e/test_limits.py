"""What one client or one upstream can take of a worker has bounds with names, and everybody else is served meanwhile."""

import asyncio
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Proxy, Worker
from tests.e2e.wire import OK, Answer, Origin, Wire, connect, exchange, read_answer, read_request

Start = Callable[..., Awaitable[Proxy]]

LINE = b"POST /v1/x HTTP/1.1\r\nHost: p\r\n"
CALL = LINE + b"Content-Length: 2\r\n\r\n{}"
ROOT = Path(__file__).parents[2]
# A storm: more of them than anybody sends.
CHUNKS = 50_000
IDLE_SHORT, IDLE_FULL = 1_000, 10_000
# Of a worker's memory; measured at 6 KB.
IDLE_CONNECTION_BYTES_MAX = 20_000


@pytest.fixture
def start(start_proxy: Start, origin: Origin) -> Start:
    async def before_origin(**changes: object) -> Proxy:
        return await start_proxy(default_upstream=f"http://127.0.0.1:{origin.port}", **changes)

    return before_origin


async def status(port: int, *pieces: bytes) -> bytes:
    return (await exchange(port, *pieces))[-1].first[9:12]


# Time


async def drip(wire: Wire, pause_s: float) -> None:
    """A byte of a header now and then, until the other side has had enough."""
    while wire.end is None:
        await wire.write(b"a")
        await asyncio.sleep(pause_s)


@pytest.mark.parametrize("calls_before", [0, 2])
async def test_a_head_that_drips_is_ended_with_the_idle_time(calls_before: int, start: Start, origin: Origin) -> None:
    proxy = await start(keepalive_timeout_s=1.0)
    wire = await connect(proxy.port)
    for _ in range(calls_before):
        await wire.write(CALL)
        await read_answer(wire)
    await wire.write(b"POST /v1/x HTTP/1.1\r\nHost: p\r\nX-Drip: ")
    async with asyncio.timeout(10):
        await drip(wire, 0.1)
    assert len(origin.requests) == calls_before


async def test_idle_connections_are_closed_after_their_time_and_busy_ones_are_not(start: Start, origin: Origin) -> None:
    proxy = await start(keepalive_timeout_s=1.0)
    go_on = asyncio.Event()

    async def slow(wire: Wire) -> None:
        while True:
            if (await read_request(wire)).payload == b"slow":
                await go_on.wait()
            await wire.write(*OK.pieces)

    origin.serve = slow
    fresh, used = await connect(proxy.port), await connect(proxy.port)
    await used.write(CALL)
    await read_answer(used)
    busy = await connect(proxy.port)
    await busy.write(LINE + b"Content-Length: 4\r\n\r\nslow")
    async with asyncio.timeout(10):
        await fresh.ended()
        await used.ended()
    assert busy.end is None
    go_on.set()
    assert (await read_answer(busy))[-1].body == b"ok"


@pytest.mark.parametrize("framing", [b"Content-Length: 10\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"])
async def test_a_body_that_stops_coming_is_answered_408_and_never_taken_for_whole(framing: bytes, start: Start, origin: Origin) -> None:
    proxy = await start(request_timeout_s=1.0)
    assert await status(proxy.port, LINE + framing) == b"408"
    assert origin.requests == []
    await origin.wires[0].ended()


async def test_a_client_that_takes_nothing_is_ended_and_its_upstream_with_it(start: Start, origin: Origin) -> None:
    proxy = await start(write_timeout_s=1.0)
    origin.answer = lambda request: Answer([b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", *[b"x" * 100_000] * 10_000])
    wire = await connect(proxy.port)
    wire.transport.pause_reading()
    await wire.write(CALL)
    async with asyncio.timeout(10):
        while not origin.wires:
            await asyncio.sleep(0.01)
        await origin.wires[0].ended()
    assert (await proxy.record())[0]["response"]["error"]["type"] == "write_timeout"


# Size


async def test_a_body_over_its_bound_is_refused(start: Start, origin: Origin) -> None:
    proxy = await start(request_bytes_max=10_000)
    assert await status(proxy.port, LINE + b"Content-Length: 10000\r\n\r\n" + b"a" * 10_000) == b"200"
    assert await status(proxy.port, LINE + b"Content-Length: 10001\r\n\r\n") == b"413"
    chunk = b"1000\r\n" + b"a" * 4096 + b"\r\n"
    assert await status(proxy.port, LINE + b"Transfer-Encoding: chunked\r\n\r\n", chunk, chunk, chunk, b"0\r\n\r\n") == b"413"
    assert len(origin.requests) == 1
    assert (await proxy.record(2))[0]["response"]["end"] == "client_error"


@pytest.mark.parametrize("over", [False, True])
async def test_the_bounds_of_a_requests_head(over: bool, start: Start, origin: Origin) -> None:
    proxy = await start(header_bytes_max=2_000, headers_max=20)
    fat, many = b"X-Fat: " + b"a" * (2_000 + over) + b"\r\n", b"".join(b"X-%d: a\r\n" % number for number in range(18 + over))
    answers = [await status(proxy.port, LINE + lines + b"Content-Length: 2\r\n\r\n{}") for lines in (fat, many)]
    answers.append(await status(proxy.port, b"GET /v1/" + b"a" * (1_800 + 400 * over) + b" HTTP/1.1\r\nHost: p\r\n\r\n"))
    assert answers == ([b"431", b"400", b"431"] if over else [b"200"] * 3)
    assert len(origin.requests) == (0 if over else 3)


@pytest.mark.parametrize(
    "head",
    [
        b"X-Fat: " + b"a" * 5_000 + b"\r\n\r\n",
        b"X: a\r\n" * 30 + b"\r\n",
        b"X: a\r\n" * 100_000,
        b"X: " + b"a" * 1_000_000,
        b"X: a\n\n",
    ],
    ids=["fat", "many", "endless lines", "endless line", "bare line feeds"],
)
async def test_the_bounds_of_an_answers_head(head: bytes, start: Start, origin: Origin) -> None:
    proxy = await start(header_bytes_max=2_000, headers_max=20)
    origin.answer = lambda request: Answer([b"HTTP/1.1 200 OK\r\n" + head], "stall")
    assert await status(proxy.port, CALL) == b"502"
    await origin.wires[0].ended()


async def test_interim_answers_without_end_are_ended(start: Start, origin: Origin) -> None:
    proxy = await start()
    origin.answer = lambda request: Answer([b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"] * 1_000, "stall")
    answers = await exchange(proxy.port, CALL)
    assert answers[-1].first[9:12] == b"502"
    assert len(answers) <= 20


@pytest.mark.parametrize("lines", [b"5;" + b"x" * 100_000, b"0\r\n" + b"X: a\r\n" * 100_000, b"00000000000000000000000005\r\nhello\r\n"])
async def test_the_bounds_of_an_answers_chunks(lines: bytes, start: Start, origin: Origin) -> None:
    proxy = await start()
    origin.answer = lambda request: Answer([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nok\r\n", lines], "stall")
    answer = (await exchange(proxy.port, CALL))[-1]
    assert (answer.whole, answer.payload[:2]) == (False, b"ok")
    await origin.wires[0].ended()


# Number


async def test_more_connections_than_the_bound_are_answered_503_until_one_has_left(start: Start, origin: Origin) -> None:
    proxy = await start(connections_max=3)
    held = [await connect(proxy.port) for _ in range(3)]
    for wire in held:
        await wire.write(CALL)
        assert (await read_answer(wire))[-1].body == b"ok"
    assert await status(proxy.port, CALL) == b"503"
    held.pop().close()
    async with asyncio.timeout(10):
        while await status(proxy.port, CALL) != b"200":
            await asyncio.sleep(0.01)


async def test_a_thousand_requests_in_one_write_are_served_once_each_in_their_order(start: Start, origin: Origin) -> None:
    proxy = await start()
    origin.answer = lambda request: Answer([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(request.payload), request.payload)])
    wire = await connect(proxy.port)
    wanted = [b"number %d" % number for number in range(1_000)]
    await wire.write(b"".join(LINE + b"Content-Length: %d\r\n\r\n%b" % (len(payload), payload) for payload in wanted))
    assert [(await read_answer(wire))[-1].body for _ in wanted] == wanted
    assert [request.payload for request in origin.requests] == wanted


async def test_a_client_that_sends_requests_and_reads_no_answer_is_read_no_more(start: Start, origin: Origin) -> None:
    proxy = await start()
    origin.answer = lambda request: Answer([b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000])
    wire = await connect(proxy.port)
    wire.transport.pause_reading()
    wire.transport.write(CALL * 600_000)
    served = -1
    while served < len(origin.requests):  # until a whole second brings no further call
        served = len(origin.requests)
        await asyncio.sleep(1)
    assert 0 < served < 1_000
    assert wire.transport.get_write_buffer_size() > 0


async def test_a_storm_of_chunks_is_carried_and_others_are_served_in_it(start: Start, origin: Origin) -> None:
    """Up and down, a byte a chunk; in the middle of it the same worker serves other calls."""
    proxy = await start()
    half = b"1\r\na\r\n" * (CHUNKS // 2)

    async def storm(wire: Wire) -> None:
        request = await read_request(wire)
        if len(request.payload) != CHUNKS:
            await wire.write(*OK.pieces)
            return
        await wire.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", half)
        assert await status(proxy.port, CALL) == b"200"
        await wire.write(half, b"0\r\n\r\n")

    origin.serve = storm
    wire = await connect(proxy.port)
    await wire.write(LINE + b"Transfer-Encoding: chunked\r\n\r\n", half)
    assert await status(proxy.port, CALL) == b"200"
    await wire.write(half, b"0\r\n\r\n")
    answer = (await read_answer(wire))[-1]
    assert (answer.whole, answer.body) == (True, half + half + b"0\r\n\r\n")


@pytest.mark.timeout(120)
async def test_idle_connections_cost_little_and_nobody_waits_for_them(worker: Worker, pytestconfig: pytest.Config) -> None:
    """1,000, or 10,000 with --full, as far as this process may open files: a real worker, its memory, its answers."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    count = min(IDLE_FULL if pytestconfig.getoption("full") else IDLE_SHORT, limit - 200)
    before = worker.resident_bytes()
    idle = []
    for _ in range(0, count, 50):
        idle += await asyncio.gather(*(connect(worker.port) for _ in range(50)))
    assert await status(worker.port, b"GET /healthz HTTP/1.1\r\nHost: p\r\n\r\n") == b"200"
    for wire in idle[:: max(count // 100, 1)]:  # each of them is as good as new
        await wire.write(b"GET /healthz HTTP/1.1\r\nHost: p\r\n\r\n")
        assert (await read_answer(wire))[-1].first[9:12] == b"200"
    grown = worker.resident_bytes() - before
    assert grown < count * IDLE_CONNECTION_BYTES_MAX
    assert all(wire.end is None for wire in idle)


def test_every_bound_is_described() -> None:
    described = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    for name in (
        "request_bytes_max", "header_bytes_max", "headers_max", "connections_max", "connect_timeout_s", "read_timeout_s",
        "write_timeout_s", "request_timeout_s", "keepalive_timeout_s", "upstream_idle_s", "upstream_idle_max",
        "capture_bytes_max", "capture_memory_bytes_max", "drain_s", "grace_s",
    ):  # fmt: skip
        assert f"| `{name}` |" in described
