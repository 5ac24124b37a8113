"""Promise 1 for files: multipart bodies arrive as they were sent, gigabytes need no memory, an early answer is let through."""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable

import pytest

from tests.e2e.conftest import Proxy, Worker
from tests.e2e.wire import OK, Answer, Ended, Origin, Wire, connect, joined, parse_lines, read_answer, read_request, split_at

Start = Callable[..., Awaitable[Proxy]]

BOUNDARY = b"----ab'()+_,-./:=?"
FILE = random.Random(5).randbytes(200_000)
MULTIPART = b"".join(
    b"--%b\r\n%b\r\n\r\n%b\r\n" % (BOUNDARY, head, content)
    for head, content in (
        (b'Content-Disposition: form-data; name="model"', b"whisper-1"),
        (b'Content-Disposition: form-data; name="file"; filename="caf\xc3\xa9 \\".mp3"\r\nContent-Type: audio/mpeg', FILE),
        (b"content-disposition:form-data;name=odd\r\nContent-Transfer-Encoding: binary", b"--" + BOUNDARY[:-1] + b"\r\n\r\n0\r\n\r\n"),
        (b'Content-Disposition: form-data; name="file"; filename=""', b""),
    )
) + b"--%b--\r\nepilogue" % BOUNDARY  # fmt: skip
SIZE_SHORT, SIZE_FULL = 64 << 20, 1 << 30
PIECE_BYTES = 1 << 18
# Captured bytes (capture_bytes_max, 8 MiB) as they are held, joined and handed on, and the buffers of two sockets.
GROWTH_BYTES_MAX = 48 << 20


def head_of(length: int | None, *lines: bytes) -> bytes:
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return joined(b"POST /v1/files HTTP/1.1", b"Host: p", *lines, framing)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_multipart_upload_arrives_as_it_was_sent(chunked: bool, origin: Origin, through: Proxy) -> None:
    kind = b'Content-Type: multipart/form-data; boundary="' + BOUNDARY + b'"'
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in split_at(MULTIPART, [9, 200, 70_000])) + b"0\r\n\r\n"
    raw = head_of(None if chunked else len(MULTIPART), kind) + (body if chunked else MULTIPART)
    wire = await connect(through.port)
    chance = random.Random(11)
    for cuts in ([], [raw.index(b"\r\n\r\n") + 4], [chance.randrange(len(raw)) for _ in range(50)], []):
        await wire.write(*split_at(raw, cuts))
        assert (await read_answer(wire))[-1].body == b"ok"
        assert origin.requests[-1].payload == MULTIPART
        assert kind in origin.requests[-1].lines
    assert (await through.record(3))[1] == MULTIPART
    wire.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_big_upload_needs_no_memory(chunked: bool, worker: Worker, origin: Origin, pytestconfig: pytest.Config) -> None:
    """64 MB, 1 GB with --full: every byte arrives, and the worker grows by its capture and its buffers only."""
    size = SIZE_FULL if pytestconfig.getoption("full") else SIZE_SHORT
    arrived = hashlib.sha256()
    count = 0

    async def receive(wire: Wire) -> None:
        nonlocal count
        await wire.until(b"\r\n\r\n")
        while count < size:
            if chunked:
                piece = (await wire.exactly(int((await wire.until(b"\r\n"))[:-2], 16) + 2))[:-2]
            else:
                await wire.exactly(1)
                piece = b"y" + wire.take(min(len(wire.buffer), size - count - 1))
            arrived.update(piece)
            count += len(piece)
        await wire.write(*OK.pieces)

    origin.serve = receive
    before = worker.resident_bytes()
    most = 0
    wire = await connect(worker.port)
    await wire.write(head_of(None if chunked else size))
    piece = b"y" * PIECE_BYTES
    for _ in range(size // PIECE_BYTES):
        await wire.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        most = max(most, worker.resident_bytes() - before)
    await wire.write(b"0\r\n\r\n" if chunked else b"")
    assert (await read_answer(wire))[-1].body == b"ok"
    assert count == size
    assert arrived.digest() == hashlib.sha256(b"y" * size).digest()
    assert most < GROWTH_BYTES_MAX


async def test_an_upstream_that_reads_slowly_holds_the_client(start_proxy: Start, origin: Origin) -> None:
    proxy = await start_proxy(default_upstream=f"http://127.0.0.1:{origin.port}", capture_bytes_max=1000)
    go_on = asyncio.Event()
    size = 64 << 20

    async def slow(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        wire.transport.pause_reading()
        await go_on.wait()
        wire.transport.resume_reading()
        left = size
        while left:
            await wire.exactly(1)
            left -= 1 + len(wire.take(min(len(wire.buffer), left - 1)))
        await wire.write(*OK.pieces)

    origin.serve = slow
    wire = await connect(proxy.port)
    sent = 0

    async def send() -> None:
        nonlocal sent
        await wire.write(head_of(size))
        for _ in range(size >> 16):
            await wire.write(b"y" * 65_536)
            sent += 65_536

    sender = asyncio.create_task(send())
    seen = -1
    while seen < sent:  # until half a second brings nothing further
        seen = sent
        await asyncio.sleep(0.5)
    assert sent < size // 2
    go_on.set()
    await sender
    assert (await read_answer(wire))[-1].body == b"ok"


REFUSAL = b"HTTP/1.1 413 Too Large\r\nX-Why: early\r\nContent-Length: 2\r\n\r\nno"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("then", ["keeps the connection", "closes", "says close", "reads on"])
async def test_an_answer_that_comes_before_the_body_is_let_through(then: str, chunked: bool, origin: Origin, through: Proxy) -> None:
    """It reaches the client while it is still sending; nobody takes what was sent of the body for something else."""
    answer = REFUSAL.replace(b"\r\nX-Why", b"\r\nConnection: close\r\nX-Why") if then == "says close" else REFUSAL
    whole: list[bytes] = []

    async def refuse(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        await wire.write(answer)
        if then == "keeps the connection":
            await wire.ended()
        elif then == "reads on":
            try:
                while True:
                    whole.append((await read_request(wire)).first)
            except (Ended, ValueError):
                pass

    origin.serve = refuse
    wire = await connect(through.port)
    await wire.write(head_of(None if chunked else 100_000), b"5\r\nstart\r\n" if chunked else b"start")
    final = (await read_answer(wire))[-1]
    assert (final.first, final.body) == (b"HTTP/1.1 413 Too Large", b"no")
    assert b"X-Why: early" in final.lines
    assert whole == []
    assert (await through.record())[0]["response"]["end"] == "complete"
    origin.serve = origin.serve_calls
    other = await connect(through.port)
    await other.write(head_of(2) + b"{}")
    assert (await read_answer(other))[-1].body == b"ok"
    assert [request.payload for request in origin.requests] == [b"{}"]


async def test_an_answer_may_go_down_while_the_body_goes_up(origin: Origin, through: Proxy) -> None:
    async def both_ways(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        await wire.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            await wire.write(b"3\r\n%b\r\n" % await wire.exactly(3))
        await wire.write(b"0\r\n\r\n")

    origin.serve = both_ways
    wire = await connect(through.port)
    await wire.write(head_of(9))
    assert parse_lines(await wire.until(b"\r\n\r\n")).first == b"HTTP/1.1 200 OK"
    for piece in (b"abc", b"def", b"ghi"):
        await wire.write(piece)
        assert await wire.until(b"\r\n") + await wire.until(b"\r\n") == b"3\r\n%b\r\n" % piece
    assert await wire.until(b"\r\n\r\n") == b"0\r\n\r\n"
    assert (await through.record())[1] == b"abcdefghi"


async def test_a_body_that_is_too_large_is_refused_before_the_client_is_told_to_go_on(start_proxy: Start, origin: Origin) -> None:
    proxy = await start_proxy(default_upstream=f"http://127.0.0.1:{origin.port}", request_bytes_max=10_000)
    wire = await connect(proxy.port)
    await wire.write(head_of(10_001, b"Expect: 100-continue"))
    (answer,) = await read_answer(wire)
    assert (answer.first[9:12], origin.wires) == (b"413", [])


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("how", ["reset", "close", "half_close"])
async def test_an_upload_that_the_client_gives_up_is_never_a_whole_request(how: str, chunked: bool, origin: Origin, through: Proxy) -> None:
    arrived = asyncio.Event()

    async def receive(wire: Wire) -> None:
        await wire.until(b"start")
        arrived.set()
        assert await wire.rest() in {b"", b"\r\n"}  # and no last chunk

    origin.serve = receive
    wire = await connect(through.port)
    await wire.write(head_of(None if chunked else 100), b"5\r\nstart\r\n" if chunked else b"start")
    await arrived.wait()
    getattr(wire, how)()
    await origin.wires[0].ended()
    facts, body, _ = await through.record()
    assert (facts["response"]["end"], facts["response"]["status"], body) == ("client_disconnected", None, b"start")


async def test_an_answer_without_end_ends_with_the_upload(origin: Origin, through: Proxy) -> None:
    """The upstream streams while the client uploads; when the client leaves, the upstream is told."""
    origin.answer = lambda request: Answer([b"HTTP/1.1 200 OK\r\n\r\n"], "stall")
    wire = await connect(through.port)
    await wire.write(head_of(2), b"{}")
    await wire.until(b"\r\n\r\n")
    wire.reset()
    await origin.wires[0].ended()
