"""WebSockets whose two sides do anything at any moment: each call ends once, is recorded once, and leaves nothing behind."""

import asyncio
import contextlib
import random
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.e2e.conftest import ASK, SWITCH, WAIT_S, Proxy, Upstream

StartProxy = Callable[..., Awaitable[Proxy]]

AT_ONCE = 30
PIECES = [b"\x81\x05hello", b"\x82\x7e\xff\xff" + bytes(65535), b"\x88\x00", b"\xff garbage", bytes(300_000)]
RESET = b"\1\0\0\0\0\0\0\0"


async def act(draw: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in range(draw.randrange(8)):
        chance = draw.random()
        if chance < 0.5:
            writer.write(draw.choice(PIECES))
        elif chance < 0.7:
            await asyncio.sleep(draw.random() * 0.02)
        else:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1 << 16), 0.02)
    await end(draw.random(), reader, writer)


async def end(chance: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if writer.is_closing():
        return
    if chance < 0.3:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()
    elif chance < 0.6:
        writer.close()
    elif chance < 0.9:
        writer.write_eof()
        await asyncio.wait_for(reader.read(-1), WAIT_S)


async def test_whatever_the_sides_do_each_call_ends_once(
    upstream: Upstream, start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    monkeypatch.setattr("proxy.tunnel.HALF_CLOSED_S", 0.2)
    proxy, draw = await start_proxy(capture_bytes_max=200_000), random.Random(20261121)
    defects: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(context))

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        chance = draw.random()
        if chance > 0.9:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n" if chance > 0.95 else b"")
            return
        writer.write(SWITCH)
        with contextlib.suppress(OSError, RuntimeError):
            await act(draw, reader, writer)

    async def talk() -> None:
        reader, writer = await proxy.connect()
        with contextlib.suppress(OSError, RuntimeError, asyncio.IncompleteReadError):  # RuntimeError: uvloop, when it was reset
            writer.write(ASK + PIECES[1] * draw.choice([0, 0, 0, 1, 3]))
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_S)
            await act(draw, reader, writer)
        writer.transport.abort()

    upstream.script = script
    rounds = 40 if pytestconfig.getoption("full") else 4
    for _ in range(rounds):
        await asyncio.gather(*(talk() for _ in range(AT_ONCE)))
    server = proxy.server
    async with asyncio.timeout(WAIT_S):
        while server._relays or server._connections or server._pool.open_connections > len(server._pool._idle):
            await asyncio.sleep(0.01)
    ends = [facts["response"]["end"] for facts, _, _ in proxy.spool.records]
    assert len(ends) == len(proxy.spool.admitted) == rounds * AT_ONCE
    assert set(ends) == {"complete", "client_disconnected", "upstream_error"}
    assert server._recording.budget.used == 0
    assert defects == []
