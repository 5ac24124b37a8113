"""A stream's socket lets others by while it goes on, and is like any other before and behind it. uvloop has one lane for all."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from proxy.loop import Loop
from tests.e2e.conftest import Proxy
from tests.e2e.wire import OK, Origin, Wire, connect, read_answer

CALL = b"POST /v1/x HTTP/1.1\r\nHost: p\r\nContent-Length: 2\r\n\r\n{}"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"2\r\n{}\r\n"
END = b"0\r\n\r\n"
PAUSE_S = 0.01


@pytest.fixture
async def told(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What the loop is told of sockets; one at a time here."""
    found: list[bool] = []
    if isinstance(loop := asyncio.get_running_loop(), Loop):
        bulk = loop.sockets.bulk

        def tell(descriptor: int, on: bool) -> None:
            found.append(on)
            bulk(descriptor, on)

        monkeypatch.setattr(loop.sockets, "bulk", tell)
    return found


def expected(*told: bool) -> list[bool]:
    return list(told) if isinstance(asyncio.get_running_loop(), Loop) else []


def in_pieces(*pieces: bytes, reset: bool = False) -> Callable[[Wire], Awaitable[None]]:
    """Answers each request in reads of their own."""

    async def serve(wire: Wire) -> None:
        while True:
            await wire.until(b"{}")
            for piece in pieces:
                await wire.write(piece)
                await asyncio.sleep(PAUSE_S)
            if reset:
                wire.reset()
                return

    return serve


async def test_a_stream_is_bulk_from_its_second_read_to_its_end(told: list[bool], through: Proxy, origin: Origin) -> None:
    origin.serve = in_pieces(HEAD + CHUNK, CHUNK, CHUNK, END)
    wire = await connect(through.port)
    for calls in range(1, 3):  # the second on the same connection to the upstream
        await wire.write(CALL)
        assert (await read_answer(wire))[-1].payload == b"{}" * 3
        assert told == expected(*[True, False] * calls)
    assert len(origin.wires) == 1


@pytest.mark.parametrize("pieces", [OK.pieces, [HEAD, CHUNK + END]], ids=["at once", "in two"])
async def test_a_short_answer_is_none(pieces: list[bytes], told: list[bool], through: Proxy, origin: Origin) -> None:
    origin.serve = in_pieces(*pieces)
    wire = await connect(through.port)
    await wire.write(CALL)
    assert (await read_answer(wire))[-1].whole
    assert told == []


async def test_a_stream_that_breaks_is_none_any_more(told: list[bool], through: Proxy, origin: Origin) -> None:
    origin.serve = in_pieces(HEAD, CHUNK, CHUNK, reset=True)
    wire = await connect(through.port)
    await wire.write(CALL)
    assert not (await read_answer(wire))[-1].whole
    assert told == expected(True, False)


async def test_a_stream_whose_client_leaves_is_none_any_more(told: list[bool], through: Proxy, origin: Origin) -> None:
    origin.serve = in_pieces(HEAD, CHUNK, *[CHUNK] * 1_000)
    wire = await connect(through.port)
    await wire.write(CALL)
    await wire.sees(CHUNK * 3)
    wire.reset()
    await through.record()
    assert told == expected(True, False)


async def test_a_stream_that_waits_for_its_client_arrives_whole(told: list[bool], through: Proxy, origin: Origin) -> None:
    """Pausing takes the socket out of the loop's sight, and resuming puts it back."""
    piece = b"10000\r\n%b\r\n" % (b"x" * (1 << 16))
    origin.serve = in_pieces(HEAD, CHUNK, piece * 200, END)
    wire = await connect(through.port)
    wire.transport.pause_reading()
    await wire.write(CALL)
    await asyncio.sleep(0.3)
    wire.transport.resume_reading()
    answer = (await read_answer(wire))[-1]
    assert (answer.whole, len(answer.payload)) == (True, 2 + 200 * (1 << 16))
    assert told == expected(True, False)
