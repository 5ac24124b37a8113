"""Requests that two parsers could read in two ways: refused, or exactly one request reaches the upstream.

Each goes out alone, byte by byte, behind well-formed calls on the same connection (whatever a worker remembers of
their heads must not vouch for it), and in one write with a well-formed one before it.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from proxy.answered import assert_c_parser
from tests.e2e.conftest import Proxy, Upstream
from tests.e2e.raw_requests import CHUNKED, LINE, ONE, REFUSED
from tests.e2e.wire import Message, Origin, Wire, connect, read_answer

StartProxy = Callable[..., Awaitable[Proxy]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
WAYS = ["alone", "byte by byte", "behind two calls", "behind a call in one write"]
# What certainly arrives in one read.
READ_BYTES = 10_000
# Longer ones are cut into so many pieces.
PIECES_MAX = 2_000
_FINE_LINE = re.compile(rb"[A-Z]+ /[^/ #\x00-\x20\x7f-\xff][^ #\x00-\x20\x7f-\xff]{,200} HTTP/1.1")
_FINE_FIELD = re.compile(rb"(?!(?i:host|content-length|transfer-encoding|upgrade|connection|http2-settings):)[\w-]+: [ -~]{,200}")


def nearest(raw: bytes) -> bytes:
    """A well-formed call whose head shares all that it can with `raw`."""
    first, *lines = raw.lstrip(b"\r\n").partition(b"\r\n\r\n")[0].split(b"\r\n")
    first = first if _FINE_LINE.fullmatch(first) else b"POST /v1/x HTTP/1.1"
    kept = [line for line in lines if _FINE_FIELD.fullmatch(line)][:10]
    framing = (b"Transfer-Encoding: chunked", b"4\r\nabcd\r\n0\r\n\r\n") if b"ncoding" in raw else (b"Content-Length: 4", b"abcd")
    return b"\r\n".join([first, b"Host: p", *kept, framing[0], b"", framing[1]])


async def send(wire: Wire, raw: bytes, way: str) -> list[Message]:
    """The answers to the well-formed calls before `raw`; its own comes next."""
    good = nearest(raw)
    if way == "alone":
        await wire.write(raw)
    elif way == "byte by byte":
        size = -(-len(raw) // PIECES_MAX)
        await wire.write(*(raw[at : at + size] for at in range(0, len(raw), size)))
    elif way == "behind two calls":
        answers = []
        for _ in range(2):
            await wire.write(good)
            answers += await read_answer(wire, good.partition(b" ")[0])
        await wire.write(raw)
        return answers
    else:
        await wire.write(good + raw)
        return await read_answer(wire, good.partition(b" ")[0])
    return []


# Their heads are well-formed; when the fault comes in a later read, the call has begun.
FAULT_IN_BODY = [name for name, raw in REFUSED.items() if raw.startswith(CHUNKED)]


def ways_of(name: str) -> list[str]:
    if name not in FAULT_IN_BODY:
        return WAYS
    return [way for way in WAYS if way != "byte by byte" and len(REFUSED[name]) < READ_BYTES]


@pytest.mark.parametrize("name", [name for name in REFUSED if ways_of(name)])
async def test_refused_and_nothing_smuggled(name: str, origin: Origin, through: Proxy) -> None:
    for way in ways_of(name):
        origin.requests.clear()
        wire = await connect(through.port)
        before = await send(wire, REFUSED[name], way)
        own = (await read_answer(wire))[-1]
        await wire.ended()
        assert not wire.buffer, way
        assert own.first[9:12] in {b"400", b"404", b"413", b"431", b"501", b""}, way  # none: the one before was refused with it
        served = [answer for answer in before if answer.first[9:12] == b"200"]
        assert [request.payload for request in origin.requests] == [b"abcd"] * len(served), way
        assert (await call(through, LINE + b"Content-Length: 5\r\n\r\nother")).body == b"ok", way
        assert origin.requests[-1].payload == b"other", way  # no other caller is touched


NOT_PLAIN = {
    "chunked": LINE + b"Transfer-Encoding: chunked\r\n\r\n1\r\nA\r\n0\r\n\r\n",
    "spaces": b"GET  /v1/x HTTP/1.1\r\nHost: p\r\n\r\n",
    "an expectation": b"GET /v1/x HTTP/1.1\r\nHost: p\r\nExpect: x\r\n\r\n",
}


@pytest.mark.parametrize("name", NOT_PLAIN)
async def test_requests_in_one_read_with_one_that_is_refused_may_be_refused_with_it(name: str, origin: Origin, through: Proxy) -> None:
    """A plain one is served all the same; so are the others when they come in a read of their own."""
    plain, refused = LINE + b"Content-Length: 2\r\n\r\nab", b"FOO / HTTP/1.1\r\n\r\n"
    for writes, served in (([NOT_PLAIN[name] + refused], 0), ([plain + NOT_PLAIN[name] * 2 + refused], 1), ([NOT_PLAIN[name], refused], 1)):
        origin.requests.clear()
        wire = await connect(through.port)
        for write in writes[:-1]:
            await wire.write(write)
            await wire.sees(b"\r\n\r\nok")
        await wire.write(writes[-1])
        answers = [(await read_answer(wire))[-1].first[9:12] for _ in range(served + 1)]
        assert (answers, await wire.rest(), len(origin.requests)) == ([b"200"] * served + [b"400"], b"", served)
        wire.close()


async def test_a_fault_that_comes_later_ends_the_call_and_nothing_is_smuggled(start_proxy: StartProxy, origin: Origin) -> None:
    proxy = await start_proxy(default_upstream=f"http://127.0.0.1:{origin.port}", request_timeout_s=1.0)

    async def broken(name: str) -> bytes:
        wire = await connect(proxy.port)
        await send(wire, REFUSED[name], "byte by byte")
        return (await read_answer(wire))[-1].first[9:12]

    ends = await asyncio.gather(*map(broken, FAULT_IN_BODY))
    assert set(ends) <= {b"400", b"408"}
    assert origin.requests == []
    for wire in origin.wires:
        await wire.ended()


async def call(proxy: Proxy, raw: bytes) -> Message:
    wire = await connect(proxy.port)
    await wire.write(raw)
    answer = (await read_answer(wire))[-1]
    wire.close()
    return answer


@pytest.mark.parametrize("name", ONE)
async def test_exactly_one_request_arrives(name: str, origin: Origin, through: Proxy) -> None:
    raw, payload = ONE[name]
    for way in WAYS:
        origin.requests.clear()
        wire = await connect(through.port)
        before = await send(wire, raw, way)
        own = await read_answer(wire)
        if way == WAYS[3] and b"ncoding" in raw:  # behind a chunked request the connection ends
            assert (own[-1].first, [request.payload for request in origin.requests]) == (b"", [b"abcd"])
            continue
        assert [answer.body for answer in [*before, *own]] == [b"ok"] * (len(before) + 1), way
        await wire.write(LINE + b"Content-Length: 6\r\n\r\nmarker")  # were there anything between, this would not be the next
        marked = (await read_answer(wire))[-1].body == b"ok"
        assert marked or (wire.end is not None and b"chunked" in raw.lower()), way
        assert [request.payload for request in origin.requests] == [b"abcd"] * len(before) + [payload, *[b"marker"] * marked], way
        assert not wire.buffer, way
        wire.close()


@pytest.mark.parametrize("place", [b"X: a%cb", b"X%cY: a", b"X: a\r\nY:%c", b"%cX: a"], ids=["value", "name", "empty value", "line"])
async def test_control_bytes_are_refused_or_stay_where_they_are(place: bytes, origin: Origin, through: Proxy) -> None:
    for byte in [*range(0x20), 0x7F]:
        if place == b"X%cY: a" and byte == 0x0A:
            continue  # two lines, the first without a colon: among the refused above
        line = place % byte
        origin.requests.clear()
        answer = await call(through, LINE + line + b"\r\nContent-Length: 2\r\n\r\nab")
        if origin.requests:
            (request,) = origin.requests
            assert (answer.body, request.payload) == (b"ok", b"ab")
            assert byte not in (0x00, 0x0A, 0x0D)
            assert [found.partition(b":")[2].strip(b" \t") for found in request.lines[1:-1]] == [
                sent.partition(b":")[2].strip(b" \t") for sent in line.split(b"\r\n")
            ]
        else:
            assert answer.first[9:12] == b"400"


async def test_an_answer_that_holds_two_is_cut_after_the_first(proxy: Proxy, upstream: Upstream) -> None:
    """Response splitting: the second answer must reach nobody, not even the next call."""
    upstream.answers(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", keep=True)
    request = LINE + b"Content-Length: 2\r\n\r\n{}"
    reader, writer = await proxy.connect()
    for _ in range(3):
        writer.write(request)
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\nok"), 5)).startswith(b"HTTP/1.1 200")
    writer.close()
    assert upstream.connections == 3


@pytest.mark.parametrize("framing", [b"Content-Length: 42", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("late", ["204", "103"])
async def test_a_body_that_comes_behind_an_answer_without_one_reaches_nobody(
    late: str, framing: bytes, proxy: Proxy, upstream: Upstream
) -> None:
    """80 ms later, when the connection might already serve the next caller."""
    head = b"HTTP/1.1 %b N\r\n%b\r\n\r\n" % (late.encode(), framing)
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pieces = [head if late == "204" else head + OK, evil] if upstream.connections == 1 else [OK]
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.08)

    upstream.script = script
    get = b"GET /v1/x HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n"
    assert (await proxy.call(get)).startswith(b"HTTP/1.1 %b N\r\n" % late.encode())
    assert (await proxy.call(get)).endswith(b"\r\n\r\nok")


def test_the_compiled_parser_is_there() -> None:
    assert_c_parser()
