"""The TCP faults do what they say, on real sockets."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from tests.faults.wire import Wire

SOME = bytes(range(256)) * 400


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """Before a server that sends back what it gets."""
    writers = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    found = Wire("127.0.0.1", server.sockets[0].getsockname()[1])
    await found.start()
    yield found
    await found.stop()
    server.close()
    for writer in writers:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def connected(wire: Wire) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    yield reader, writer
    writer.transport.abort()


async def echoed(wire: Wire, data: bytes) -> bytes:
    async with connected(wire) as (reader, writer):
        writer.write(data)
        return await reader.readexactly(len(data))


async def test_without_faults_all_bytes_come_back_and_the_end_is_seen(wire: Wire) -> None:
    async with connected(wire) as (reader, writer):
        writer.write(SOME)
        writer.write_eof()
        assert await reader.read(-1) == SOME


async def test_latency_and_bandwidth_take_their_time_and_change_nothing(wire: Wire) -> None:
    wire.up.latency_s = wire.down.latency_s = 0.1
    began = time.monotonic()
    assert await echoed(wire, b"x") == b"x"
    assert time.monotonic() - began >= 0.2
    wire.up.latency_s = wire.down.latency_s = 0.0
    wire.down.bytes_per_s = len(SOME) * 5
    began = time.monotonic()
    assert await echoed(wire, SOME) == SOME
    assert time.monotonic() - began >= 0.19


async def test_slices_hold_the_same_bytes(wire: Wire) -> None:
    wire.up.slice_bytes, wire.down.slice_bytes = 700, 333
    assert await echoed(wire, SOME) == SOME


async def test_silence_of_one_direction_holds_its_bytes_only(wire: Wire) -> None:
    wire.down.silence()
    async with connected(wire) as (reader, writer):
        writer.write(b"heard")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        wire.down.speak()
        assert await reader.readexactly(5) == b"heard"


async def test_reset_breaks_what_is_open_and_refusing_what_comes(wire: Wire) -> None:
    async with connected(wire) as (reader, writer):
        writer.write(b"x")
        await reader.readexactly(1)
        wire.reset()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
    wire.refusing = True
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await echoed(wire, b"x")
    wire.refusing = False
    assert await echoed(wire, b"x") == b"x"


async def test_a_reset_after_so_many_bytes(wire: Wire) -> None:
    wire.down.slice_bytes, wire.down.reset_after_bytes = 100, 1000
    async with connected(wire) as (reader, writer):
        writer.write(SOME)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(len(SOME))
    assert await echoed(wire, SOME) == SOME
