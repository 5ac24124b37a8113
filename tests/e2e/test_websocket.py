"""A WebSocket through a real worker: the heads, the bytes of both ways, and how they end."""

import asyncio
import hashlib
import json
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from tests.e2e.conftest import ASK, SWITCH, WAIT_S, WEBSOCKET_KEY, Open, Proxy, Upstream

StartProxy = Callable[..., Awaitable[Proxy]]

RESET = b"\1\0\0\0\0\0\0\0"
HELLO = b"\x81\x05hello"
CLOSE = b"\x88\x05\x03\xe8bye"


def masked(frame: bytes, mask: bytes = b"\1\2\3\4") -> bytes:
    """Of a frame with a short payload."""
    return bytes([frame[0], frame[1] | 0x80]) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(frame[2:]))


async def read_exactly(reader: asyncio.StreamReader, size: int) -> bytes:
    return await asyncio.wait_for(reader.readexactly(size), WAIT_S)


async def end_of(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.read(-1), WAIT_S)


# Heads


async def test_both_heads_pass_with_the_lines_of_the_upgrade_and_no_other_of_the_hop(open_raw: Open, upstream: Upstream) -> None:
    raw = await open_raw()
    assert raw.asked == (
        b"GET /v1/realtime?model=gpt-realtime HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
        b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.%b\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" % (upstream.port, WEBSOCKET_KEY)
    )
    lines = raw.head.split(b"\r\n")
    ours = [line for line in lines if line.startswith((b"Clearpane-Id: ", b"Server-Timing: clearpane;"))]
    assert len(ours) == 2
    assert [line for line in lines if line not in ours] == SWITCH.split(b"\r\n")


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"200 OK", b"426 Upgrade Required"])
async def test_an_answer_without_a_switch_is_an_ordinary_one_and_the_connection_goes_on(
    status: bytes, proxy: Proxy, upstream: Upstream
) -> None:
    upstream.answers(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\nno" % status, keep=True)
    reader, writer = await proxy.connect()
    for _ in range(2):
        writer.write(ASK)
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\nno"), WAIT_S)).startswith(b"HTTP/1.1 %b\r\n" % status)
    facts, request, response = await proxy.record(1)
    assert (facts["response"]["end"], facts["response"]["streamed"], request, response) == ("complete", False, b"", b"no")
    writer.close()


async def test_what_a_client_sends_before_the_switch_is_sent_on_after_it(proxy: Proxy, upstream: Upstream) -> None:
    early = HELLO * 30_000  # more than is read ahead
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)
        assert not reader._buffer  # type: ignore[attr-defined]  # nothing before the 101
        writer.write(SWITCH)
        seen.put_nowait(await reader.readexactly(len(early)))

    upstream.script = script
    reader, writer = await proxy.connect()
    writer.write(ASK + early)
    assert await asyncio.wait_for(seen.get(), WAIT_S) == early
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_S)
    writer.close()


async def test_an_upstream_that_switches_to_something_else_is_a_502(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(SWITCH.replace(b"websocket", b"h2c"), keep=True)
    answer = await proxy.call(ASK.replace(b"keep-alive, Upgrade", b"Upgrade, close"))
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"Clearpane-Error: upstream_malformed" in answer


async def test_a_websocket_never_takes_a_kept_connection_and_never_becomes_one(open_raw: Open, upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", keep=True)
    await proxy.call(b"POST /v1/x HTTP/1.1\r\nHost: p\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
    assert upstream.connections == 1
    raw = await open_raw(proxy=proxy)
    assert upstream.connections == 2
    raw.client[1].write(masked(CLOSE))
    raw.server[1].write(CLOSE)
    raw.server[1].write_eof()
    await read_exactly(raw.client[0], len(CLOSE))
    raw.client[1].write_eof()
    assert (await proxy.record(1))[0]["response"]["end"] == "complete"
    assert len(proxy.server._pool._idle[next(iter(proxy.server._pool._idle))]) == 1


# Bytes


async def test_bytes_pass_untouched_both_ways_as_they_come(open_raw: Open) -> None:
    """Not even frames: what the two sides make of them is theirs."""
    raw = await open_raw()
    for piece in (b"\0", masked(HELLO)[:3], masked(HELLO)[3:], b"\xff\xff garbage", os.urandom(100_000)):
        raw.client[1].write(piece)
        assert await read_exactly(raw.server[0], len(piece)) == piece
        raw.server[1].write(piece[::-1])
        assert await read_exactly(raw.client[0], len(piece)) == piece[::-1]


@pytest.mark.parametrize("slow", ["client", "server"])
async def test_a_slow_reader_holds_the_sender_and_not_the_memory(slow: str, open_raw: Open) -> None:
    raw = await open_raw(capture_bytes_max=1000)
    ends = {"client": raw.client, "server": raw.server}
    reader, reading = ends[slow]
    _, sending = ends["server" if slow == "client" else "client"]
    reading.transport.pause_reading()
    size, sent = 64 << 20, 0

    async def send() -> None:
        nonlocal sent
        while sent < size:
            sending.write(b"x" * 65536)
            await sending.drain()
            sent += 65536

    task = asyncio.create_task(send())
    before = -1
    while before != sent:  # until nothing moves any more
        before = sent
        await asyncio.sleep(0.3)
    assert sent < size // 2
    reading.transport.resume_reading()
    received = 0
    async with asyncio.timeout(30):
        while received < size:
            received += len(await reader.read(1 << 20))
    await task
    sending.write_eof()
    reading.write_eof()
    facts, _, _ = await raw.proxy.record()
    side = facts["response" if slow == "client" else "request"]
    assert (side["body_bytes"], side["truncated"]) == (size, True)
    assert side["body_sha256"] == hashlib.sha256(b"x" * size).hexdigest()
    assert raw.proxy.server._recording.budget.used == 0


# Ends


async def test_a_client_that_ends_first_may_still_be_told_the_rest(open_raw: Open) -> None:
    raw = await open_raw()
    raw.client[1].write(masked(CLOSE))
    raw.client[1].write_eof()
    assert await end_of(raw.server[0]) == masked(CLOSE)
    raw.server[1].write(HELLO + CLOSE)
    raw.server[1].write_eof()
    assert await end_of(raw.client[0]) == HELLO + CLOSE
    assert (await raw.proxy.record())[0]["response"]["end"] == "complete"


async def test_an_upstream_that_ends_first_may_still_be_told_the_rest(open_raw: Open) -> None:
    raw = await open_raw()
    raw.server[1].write(HELLO + CLOSE)
    raw.server[1].write_eof()
    assert await end_of(raw.client[0]) == HELLO + CLOSE
    raw.client[1].write(masked(CLOSE))
    raw.client[1].write_eof()
    assert await end_of(raw.server[0]) == masked(CLOSE)
    facts, _, _ = await raw.proxy.record()
    assert (facts["response"]["end"], facts["response"]["error"]) == ("complete", None)


async def test_one_side_that_ends_has_the_other_ended_soon(open_raw: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.tunnel.HALF_CLOSED_S", 0.1)
    raw = await open_raw()
    raw.server[1].write_eof()
    assert await end_of(raw.client[0]) == b""
    assert await end_of(raw.server[0]) == b""
    facts, _, _ = await raw.proxy.record()
    assert (facts["response"]["end"], facts["response"]["error"]["source"]) == ("upstream_error", "upstream")


async def test_a_client_that_leaves_without_a_close_is_gone_for_the_upstream_at_once(open_raw: Open) -> None:
    raw = await open_raw()
    raw.client[1].close()  # as the kernel does for a process that died
    assert await asyncio.wait_for(raw.server[0].read(-1), 0.5) == b""
    raw.server[1].close()
    facts, _, _ = await raw.proxy.record()
    assert (facts["response"]["end"], facts["response"]["error"]["source"]) == ("client_disconnected", "client")


@pytest.mark.parametrize(("resets", "end"), [("client", "client_disconnected"), ("server", "upstream_error")])
async def test_a_reset_is_passed_on(resets: str, end: str, open_raw: Open) -> None:
    raw = await open_raw()
    (_, resetting), (reader, _) = (raw.client, raw.server) if resets == "client" else (raw.server, raw.client)
    resetting.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    resetting.transport.abort()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(-1), 0.5)
    assert (await raw.proxy.record())[0]["response"]["end"] == end


async def test_a_silent_websocket_is_ended(open_raw: Open) -> None:
    raw = await open_raw(websocket_idle_s=1.0, read_timeout_s=1.0)
    raw.server[1].write(HELLO)
    assert await end_of(raw.client[0]) == HELLO
    assert await end_of(raw.server[0]) == b""
    facts, _, _ = await raw.proxy.record()
    assert (facts["response"]["end"], facts["response"]["error"]["type"]) == ("timeout", "websocket_idle")


async def test_a_stop_ends_both_sides_when_its_grace_is_over(open_raw: Open) -> None:
    raw = await open_raw()
    raw.server[1].write(HELLO)
    assert await read_exactly(raw.client[0], len(HELLO)) == HELLO
    assert await raw.proxy.server.drain(0.05) == 1
    assert await end_of(raw.client[0]) == b""
    assert await end_of(raw.server[0]) == b""
    facts, _, response = await raw.proxy.record()
    assert (facts["response"]["end"], json.loads(response)["data"]) == ("shutdown", "hello")


async def test_a_websocket_that_ends_in_the_grace_time_is_complete(open_raw: Open) -> None:
    raw = await open_raw()
    draining = asyncio.create_task(raw.proxy.server.drain(WAIT_S))
    await asyncio.sleep(0)
    raw.server[1].write(CLOSE)
    raw.server[1].write_eof()
    assert await end_of(raw.client[0]) == CLOSE
    raw.client[1].write_eof()
    assert await draining == 0
    assert (await raw.proxy.record())[0]["response"]["end"] == "complete"


async def test_more_connections_than_the_bound_get_503_for_a_websocket_too(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(connections_max=1)
    (_, first), (reader, writer) = await proxy.connect(), await proxy.connect()
    writer.write(ASK)
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), WAIT_S)).startswith(b"HTTP/1.1 503")
    first.close()
    writer.close()
