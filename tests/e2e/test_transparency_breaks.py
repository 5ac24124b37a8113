"""Promise 1 when an exchange breaks: at every moment of it, at the upstream's end and at the client's.

What breaks at the upstream breaks at the client, at the same byte, and never looks whole; what the client leaves
the upstream is told within half a second.
"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.e2e.conftest import Proxy
from tests.e2e.differences import at_client, without_ours
from tests.e2e.wire import OK, Answer, Message, Origin, Wire, connect, exchange, read_answer, read_request, split_at

Start = Callable[..., Awaitable[Proxy]]

CALL = b"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nContent-Length: 2\r\n\r\n{}"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
TOLD_S = 0.5
# A busy machine may miss the half second now and then, a broken worker misses it always.
TRIES = 3

WHOLE = {
    "length": HEAD + b"Content-Length: 16\r\n\r\ndata: 1\n\ndata: 2",
    "chunked": HEAD + b'Transfer-Encoding: chunked\r\n\r\n9;x="y"\r\ndata: 1\n\n\r\n7\r\ndata: 2\r\n0\r\nX-Sum: 1\r\n\r\n',
    "close": HEAD + b"\r\ndata: 1\n\ndata: 2",
    "hints": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\nok",
}  # fmt: skip


def same_break(direct: list[Message], seen: list[Message]) -> None:
    """What a broken answer has brought until then is the same; a broken head is an answer of the proxy instead."""
    if direct[-1].lines:
        assert without_ours(seen) == at_client(direct)
    else:
        assert at_client(seen[:-1]) == at_client(direct[:-1])
        assert (seen[-1].first[9:12], seen[-1].values(b"clearpane-error")) == (b"502", [b"upstream_broken"])


@pytest.mark.parametrize("then", ["fin", "reset"])
@pytest.mark.parametrize("framing", WHOLE)
async def test_an_answer_that_breaks_at_any_byte_breaks_there(
    framing: str, then: str, origin: Origin, through: Proxy, pytestconfig: pytest.Config
) -> None:
    """Every byte of the answer in turn is the last, every third without --full; in one write, and in two."""
    whole = WHOLE[framing]
    for cut in range(len(whole) - 1, -1, -1 if pytestconfig.getoption("full") else -3):
        sent = whole[:cut]
        for pieces in ([sent], split_at(sent, [max(cut - 3, 0)])):
            origin.answer = lambda request, pieces=pieces: Answer([piece for piece in pieces if piece], then)
            direct = await exchange(origin.port, CALL)
            seen = await exchange(through.port, CALL)
            same_break(direct, seen)
            complete = framing == "close" and then == "fin" and cut >= len(HEAD) + 2
            assert direct[-1].whole == complete
            assert seen[-1].whole == (complete or not direct[-1].lines)


async def test_a_break_is_recorded_as_the_upstreams_and_nothing_is_sent_again(origin: Origin, through: Proxy) -> None:
    for number, whole in enumerate(WHOLE.values()):
        origin.answer = lambda request, whole=whole: Answer([whole[:-1]], "reset")
        await exchange(through.port, CALL)
        facts, _, _ = await through.record(number)
        assert (facts["response"]["end"], facts["response"]["error"]["source"]) == ("upstream_error", "upstream")
    assert len(origin.requests) == len(WHOLE)


async def test_an_upstream_that_falls_silent_is_given_its_time_and_then_broken_off(start_proxy: Start, origin: Origin) -> None:
    """What had come has long gone on; then the break is seen as one."""
    proxy = await start_proxy(default_upstream=f"http://127.0.0.1:{origin.port}", read_timeout_s=1.0)

    async def stall(wire: Wire) -> None:
        number = int((await read_request(wire)).payload)
        await wire.write(list(WHOLE.values())[number][:-1])
        await wire.ended()

    async def call(number: int) -> Message:
        wire = await connect(proxy.port)
        await wire.write(CALL[:-2] + b"%02d" % number)
        await wire.sees(b"Content-Type: text/event-stream\r\n")  # comes at once
        return (await read_answer(wire))[-1]

    origin.serve = stall
    for answer in await asyncio.gather(*map(call, range(len(WHOLE)))):
        assert not answer.whole
    assert {(await proxy.record(number))[0]["response"]["end"] for number in range(len(WHOLE))} == {"timeout"}


# What is not HTTP breaks before its first wrong byte

MALFORMED = {
    "status line": b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "an empty line before it": b"\r\n" + OK.pieces[0],
    "empty lines before it": b"\r\n\r\n" + OK.pieces[0],
    "no HTTP": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "length list": HEAD + b"Content-Length: 2, 2\r\n\r\nok",
    "length with a sign": HEAD + b"Content-Length: +2\r\n\r\nok",
    "length and coding": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "two codings": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "folded line": HEAD + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "space before the colon": HEAD + b"Content-Length : 2\r\n\r\nok",
    "NUL": HEAD + b"X: a\x00b\r\nContent-Length: 2\r\n\r\nok",
    "bare CR": HEAD + b"X: a\rb\r\nContent-Length: 2\r\n\r\nok",
    "bare LF": HEAD + b"X: a\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
    "switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
}
MALFORMED_CHUNKS = {
    "size": b"2\r\nok\r\n+2\r\nno\r\n0\r\n\r\n",
    "size in hexadecimal": b"2\r\nok\r\n0x2\r\nno\r\n0\r\n\r\n",
    "too long": b"2\r\nok\r\n2\r\nnope\r\n0\r\n\r\n",
    "bare LF": b"2\r\nok\r\n2\nno\r\n0\r\n\r\n",
    "bare LF behind a chunk": b"2\r\nok\r\n2\r\nno\n0\r\n\r\n",
    "bare LF at the end": b"2\r\nok\r\n0\r\n\n",
    "LF in an extension": b"2\r\nok\r\n2;a\nb\r\nno\r\n0\r\n\r\n",
    "trailer": b"2\r\nok\r\n0\r\nno trailer\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_an_answer_that_can_be_read_in_two_ways_is_a_502(name: str, origin: Origin, through: Proxy) -> None:
    for pieces in ([MALFORMED[name]], split_at(MALFORMED[name], range(200))):
        origin.answer = lambda request, pieces=pieces: Answer(pieces, "stall")
        answer = (await exchange(through.port, CALL))[-1]
        assert (answer.first[9:12], answer.values(b"clearpane-error")) == (b"502", [b"upstream_malformed"])
        await origin.wires[-1].ended()


async def test_a_refusal_of_a_head_request_has_no_body(origin: Origin, through: Proxy) -> None:
    """Behind it the connection serves the next call, or ends; its length is that of the body that it does not have."""
    head, get = (method + b" /v1/x HTTP/1.1\r\nHost: p\r\n\r\n" for method in (b"HEAD", b"GET"))
    wire = await connect(through.port)
    for status, answer, request in (
        (b"502", Answer([b"HTTP/2 200\r\n\r\n"], "stall"), head),
        (b"200", OK, get),
        (b"400", OK, head.replace(b"Host: p", b"Host: u@p")),
    ):
        origin.answer = lambda request, answer=answer: answer
        await wire.write(request)
        (seen,) = await read_answer(wire, request.partition(b" ")[0])
        assert (seen.first[9:12], seen.body) == (status, b"ok" if request == get else b"")
        assert int(seen.values(b"content-length")[0]) > 100 or request == get
    assert await wire.rest() == b""
    wire.close()


@pytest.mark.parametrize("name", MALFORMED_CHUNKS)
async def test_chunks_that_can_be_read_in_two_ways_break_the_answer(name: str, origin: Origin, through: Proxy) -> None:
    head, body = HEAD + b"Transfer-Encoding: chunked\r\n\r\n", MALFORMED_CHUNKS[name]
    for pieces in ([head + body[:7], body[7:]], [head, *split_at(body, range(200))]):
        origin.answer = lambda request, pieces=pieces: Answer(pieces, "stall")
        answer = (await exchange(through.port, CALL))[-1]
        assert (answer.whole, answer.payload[:2]) == (False, b"ok")
        await origin.wires[-1].ended()


# The client leaves


async def silent(wire: Wire) -> None:
    await read_request(wire)
    await wire.ended()


async def head_only(wire: Wire) -> None:
    await read_request(wire)
    await wire.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    await wire.ended()


async def in_a_chunk(wire: Wire) -> None:
    await read_request(wire)
    await wire.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\ndat")
    await wire.ended()


async def streaming(wire: Wire) -> None:
    await read_request(wire)
    await wire.write(HEAD + b"\r\n")
    while wire.end is None:
        await wire.write(b"data: 1\n\n")
        await asyncio.sleep(0.01)


async def flooding(wire: Wire) -> None:
    await read_request(wire)
    await wire.write(HEAD + b"\r\n")
    while wire.end is None and not wire.transport.is_closing():
        await wire.write(b"x" * 65_536)


MOMENTS = {
    "before the answer": (silent, b""),
    "behind the head": (head_only, b"\r\n\r\n"),
    "in a chunk": (in_a_chunk, b"dat"),
    "in a stream": (streaming, b"data: 1\n\ndata: 1"),
    "while it takes nothing": (flooding, b"x"),
}


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_client_that_leaves_is_gone_at_the_upstream_within_half_a_second(
    moment: str, how: str, origin: Origin, through: Proxy
) -> None:
    script, seen = MOMENTS[moment]
    origin.serve = script
    fastest_s = 60.0
    for number in range(TRIES):
        wire = await connect(through.port)
        await wire.write(CALL)
        await wire.until(seen) if seen else await arrived(origin, number)
        if moment == "while it takes nothing":
            wire.transport.pause_reading()
            await asyncio.sleep(0.2)
        getattr(wire, how)()
        left_s = asyncio.get_running_loop().time()
        async with asyncio.timeout(20):
            await origin.wires[number].ended()
        fastest_s = min(fastest_s, asyncio.get_running_loop().time() - left_s)
        facts, _, _ = await through.record(number)
        assert (facts["response"]["end"], facts["response"]["error"]["source"]) == ("client_disconnected", "client")
        if fastest_s < TOLD_S:
            break
    assert fastest_s < TOLD_S


async def arrived(origin: Origin, number: int) -> None:
    while len(origin.wires) <= number:
        await asyncio.sleep(0.005)


async def test_a_client_that_closes_its_half_counts_as_gone(origin: Origin, through: Proxy) -> None:
    origin.serve = silent
    wire = await connect(through.port)
    await wire.write(CALL)
    await arrived(origin, 0)
    wire.half_close()
    await wire.ended()
    assert not wire.buffer
    await origin.wires[0].ended()
    assert (await through.record())[0]["response"]["end"] == "client_disconnected"


async def test_a_client_that_leaves_in_the_middle_of_its_requests_leaves_nothing_to_the_next(origin: Origin, through: Proxy) -> None:
    """Two in flight and half a third, then gone: what they were answered goes to nobody else."""

    async def mirror(wire: Wire) -> None:
        while True:
            request = await read_request(wire)
            await wire.write(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(request.payload), request.payload))

    origin.serve = mirror
    for number in range(20):
        wire = await connect(through.port)
        await wire.write(CALL * 2 + CALL[: 10 + number * 4])
        wire.reset()
        (answer,) = await exchange(through.port, CALL[:-2] + b"%02d" % number)
        assert answer.body == b"%02d" % number


async def test_a_client_that_is_gone_before_its_call_is_read_costs_no_answer(origin: Origin, through: Proxy) -> None:
    origin.answer = lambda request: OK
    for way in ("reset", "close"):
        wire = await connect(through.port)
        wire.transport.write(CALL)
        getattr(wire, way)()
    (answer,) = await exchange(through.port, CALL)
    assert answer.body == b"ok"
