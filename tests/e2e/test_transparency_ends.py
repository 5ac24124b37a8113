"""Promise 1 when a call does not go well: what breaks at the upstream breaks at the client, and the record says why."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import pytest

from proxy.client import ClientConnection
from proxy.relay import Relay
from tests.e2e.conftest import Proxy, Upstream

StartProxy = Callable[..., Awaitable[Proxy]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
KEPT = POST.replace(b"Connection: close\r\n", b"")
CHUNKED = KEPT.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked").replace(b"{}", b"2\r\n{}\r\n0\r\n\r\n")


def split_head(answer: bytes) -> tuple[list[bytes], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body


async def test_no_answer_at_all_is_a_502_that_names_its_source(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(b"")
    lines, body = split_head(await proxy.call(POST))
    assert lines[0] == b"HTTP/1.1 502 Bad Gateway"
    assert b"Clearpane-Error: upstream_broken" in lines
    assert b'"source":"proxy"' in body
    assert upstream.connections == 1  # nothing is sent a second time


async def test_a_silent_upstream_is_a_504(start_proxy: StartProxy, upstream: Upstream) -> None:
    proxy = await start_proxy(read_timeout_s=1.0)
    upstream.answers(b"", keep=True)
    lines, _ = split_head(await proxy.call(POST))
    assert lines[0] == b"HTTP/1.1 504 Gateway Timeout"
    assert (await proxy.record())[0]["response"]["end"] == "timeout"


async def test_a_client_that_leaves_ends_the_upstreams_work(proxy: Proxy, upstream: Upstream) -> None:
    gone = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await reader.read(1)
        gone.set()

    upstream.script = script
    reader, writer = await proxy.connect()
    writer.write(POST)
    await reader.readuntil(b"\r\n1\r\na\r\n")
    writer.transport.abort()
    await asyncio.wait_for(gone.wait(), 0.5)
    facts, _, response = await proxy.record()
    assert (facts["response"]["end"], response) == ("client_disconnected", b"a")


@pytest.mark.parametrize("asked", [POST, CHUNKED], ids=["whole", "chunked"])
async def test_a_client_that_closes_its_half_and_takes_nothing_ends_the_upstreams_work(
    asked: bytes, proxy: Proxy, upstream: Upstream
) -> None:
    gone, written = asyncio.Event(), 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"a" * (1 << 18))
                await writer.drain()
                written += 1
        except ConnectionError:
            gone.set()

    upstream.script = flood
    _, writer = await proxy.connect()
    writer.transport.pause_reading()
    writer.write(asked)
    async with asyncio.timeout(10):
        while not any(connection.stuck for connection in proxy.server._connections) or not written:
            await asyncio.sleep(0.01)
    writer.write_eof()
    facts, _, _ = await proxy.record()
    await asyncio.wait_for(gone.wait(), 10)
    assert facts["response"]["end"] == "client_disconnected"
    writer.transport.abort()


async def test_a_client_that_leaves_after_the_last_event_has_seen_it_all(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n[DONE]\r\n", b"0\r\n\r\n", pause_s=0.05)
    reader, writer = await proxy.connect()
    writer.write(POST)
    await reader.readuntil(b"[DONE]")
    writer.transport.abort()
    facts, _, response = await proxy.record()
    assert (facts["response"]["end"], facts["response"]["error"], response) == ("complete", None, b"[DONE]")


async def test_draining_reads_to_the_end_for_the_record(start_proxy: StartProxy, upstream: Upstream) -> None:
    proxy = await start_proxy(client_gone="drain", drain_s=5.0)
    upstream.answers(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"1\r\n%d\r\n" % n for n in range(5)], b"0\r\n\r\n", pause_s=0.05
    )
    reader, writer = await proxy.connect()
    writer.write(POST)
    await reader.readuntil(b"1\r\n0\r\n")
    writer.transport.abort()
    facts, _, response = await proxy.record()
    assert (facts["response"]["end"], response) == ("client_disconnected", b"01234")


async def test_a_slow_reader_holds_the_upstream_and_not_the_memory(start_proxy: StartProxy, upstream: Upstream) -> None:
    proxy = await start_proxy(capture_bytes_max=1000)
    size = 64 << 20
    sent = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    upstream.script = script
    reader, writer = await proxy.connect()
    writer.transport.pause_reading()
    writer.write(POST)
    await asyncio.sleep(1.0)
    assert sent < size // 2  # the rest waits in the upstream
    writer.transport.resume_reading()
    received = 0
    async with asyncio.timeout(20):
        while piece := await reader.read(1 << 20):
            received += len(piece)
    assert received > size
    facts, _, response = await proxy.record()
    assert (facts["response"]["end"], facts["response"]["body_bytes"], len(response)) == ("complete", size, 1000)
    assert facts["response"]["truncated"]
    assert facts["response"]["body_sha256"] == hashlib.sha256(b"x" * size).hexdigest()
    writer.close()


async def test_a_pooled_connection_that_the_upstream_closed_is_not_used(proxy: Proxy, upstream: Upstream) -> None:
    """The keep-alive race: many calls to an upstream that closes after every answer, without saying so."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Upstream.read_request(reader, bytearray())
        writer.write(OK)

    upstream.script = script
    reader, writer = await proxy.connect()
    for _ in range(100):
        writer.write(POST.replace(b"Connection: close\r\n", b""))
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\nok"), 5)).startswith(b"HTTP/1.1 200 OK")
        await asyncio.sleep(0.001)
    writer.close()


async def test_two_callers_never_share_a_cookie(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(b"HTTP/1.1 200 OK\r\nSet-Cookie: who=first\r\nContent-Length: 0\r\n\r\n", keep=True)
    await proxy.call(POST)
    await proxy.call(POST)
    assert b"ookie" not in upstream.received[1]


async def test_half_a_call_cut_by_a_stop_is_a_shutdown(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", keep=True)
    reader, writer = await proxy.connect()
    writer.write(POST)
    await reader.readuntil(b"\r\n1\r\na\r\n")
    assert await proxy.server.drain(0.05) == 1
    assert (await reader.read(-1)) == b""
    assert (await proxy.record())[0]["response"]["end"] == "shutdown"
    writer.close()


@pytest.mark.interpreted
async def test_a_defect_of_ours_is_a_500_that_says_so_and_a_record(
    proxy: Proxy, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object, **more: object) -> bytes:
        raise RuntimeError("sk-secret-in-an-exception")

    monkeypatch.setattr("proxy.server.ProxyServer._head", broken)
    lines, body = split_head(await proxy.call(POST))
    assert lines[0] == b"HTTP/1.1 500 Internal Server Error"
    assert b'"source":"proxy"' in body
    assert b"sk-secret" not in body
    facts, _, _ = await proxy.record()
    assert (facts["response"]["end"], facts["response"]["error"]["type"]) == ("rejected", "internal")
    assert "a defect of the proxy" in caplog.text


async def idle_connection(proxy: Proxy) -> ClientConnection:
    """One that waits for its next call, or its first."""
    async with asyncio.timeout(10):
        while not (found := [each for each in proxy.server._connections if each.at_rest]):
            await asyncio.sleep(0.001)
    return found[0]


@pytest.mark.parametrize("comes", [(KEPT,), (CHUNKED,), (KEPT[:-2], KEPT[-2:])], ids=["whole", "chunked", "head and body apart"])
async def test_a_call_that_comes_as_the_last_one_ends_is_finished_too(comes: tuple[bytes, ...], proxy: Proxy, upstream: Upstream) -> None:
    """The stop looks for open calls in the turn in which the bytes have come, before any task has seen them."""
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok", keep=True)
    server = proxy.server
    reader, writer = await proxy.connect()
    idle = await idle_connection(proxy)
    idle.data_received(comes[0])
    draining = asyncio.create_task(server.drain(10))
    await asyncio.sleep(0)
    for piece in comes[1:]:
        idle.data_received(piece)
    assert (await asyncio.wait_for(reader.read(), 10)).endswith(b"\r\n\r\nok")
    assert await draining == 0
    assert (await proxy.record())[0]["response"]["end"] == "complete"
    writer.close()


@pytest.mark.interpreted
async def test_a_call_that_waits_behind_the_last_one_is_finished_too(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(OK, keep=True)
    server, drains = proxy.server, list[asyncio.Task[int]]()
    reader, writer = await proxy.connect()
    done = server.done

    def done_and_stop(relay: Relay) -> None:
        done(relay)
        if not drains:
            drains.append(asyncio.create_task(server.drain(10)))

    server.done = done_and_stop  # type: ignore[method-assign]
    writer.write(KEPT + KEPT)
    assert (await asyncio.wait_for(reader.read(), 10)).count(b"\r\n\r\nok") == 2
    assert await drains[0] == 0
    writer.close()


async def test_a_client_that_left_before_its_call_was_begun_costs_the_upstream_nothing(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(OK, keep=True)
    _, writer = await proxy.connect()
    idle = await idle_connection(proxy)
    idle.data_received(CHUNKED)
    asyncio.get_running_loop().call_soon(writer.transport.abort)
    while idle._waiter is not None:  # aiohttp's task has taken the request, and has yet to start its handler
        await asyncio.sleep(0)
    idle.connection_lost(None)
    assert (await proxy.record())[0]["response"]["end"] == "client_disconnected"
    assert upstream.connections == 0


async def test_a_stop_waits_for_no_connection_that_is_at_rest(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(OK, keep=True)
    ends = [await proxy.connect() for _ in range(4)]
    for (reader, writer), request in zip(ends, (KEPT, CHUNKED, b"GET /healthz HTTP/1.1\r\nHost: p\r\n\r\n"), strict=False):
        writer.write(request)
        await asyncio.wait_for(reader.readuntil(b"ok"), 10)
    begun_s = asyncio.get_running_loop().time()
    assert await proxy.server.drain(10) == 0
    assert asyncio.get_running_loop().time() - begun_s < 5
    for reader, writer in ends:
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
