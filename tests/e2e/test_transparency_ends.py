"""Promise 1 when a call does not go well: what breaks at the upstream breaks at the client, and the record says why."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import pytest

from proxy.relay import Relay
from tests.e2e.conftest import Proxy, Upstream

StartProxy = Callable[..., Awaitable[Proxy]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"


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
    await reader.readuntil(b"a\r\n")
    writer.transport.abort()
    await asyncio.wait_for(gone.wait(), 0.5)
    facts, _, response = await proxy.record()
    assert (facts["response"]["end"], response) == ("client_disconnected", b"a")


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
    await reader.readuntil(b"a\r\n")
    assert await proxy.server.drain(0.05) == 1
    assert (await reader.read(-1)) == b""
    assert (await proxy.record())[0]["response"]["end"] == "shutdown"
    writer.close()


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


async def test_a_call_that_comes_as_the_last_one_ends_is_finished_too(proxy: Proxy, upstream: Upstream) -> None:
    """The stop has been told that no call is open, and has not gone on yet."""
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok", pause_s=0.05, keep=True)
    server, kept = proxy.server, POST.replace(b"Connection: close\r\n", b"")
    (first, first_writer), (second, second_writer) = [await proxy.connect() for _ in range(2)]
    first_writer.write(kept)
    async with asyncio.timeout(10):
        while len(server._connections) < 2 or len(server._relays) < 1:
            await asyncio.sleep(0.001)
    idle = next(connection for connection in server._connections if connection.relay is None)
    ended, done = [], server.done

    def done_and_another(relay: Relay) -> None:
        done(relay)
        ended.append(relay)
        if len(ended) == 1:
            idle.data_received(kept)

    server.done = done_and_another  # type: ignore[method-assign]
    assert await server.drain(10) == 0
    answers = [await asyncio.wait_for(reader.read(), 10) for reader in (first, second)]
    assert [answer.endswith(b"\r\n\r\nok") for answer in answers] == [True, True]
    assert [relay.call.end_reason for relay in ended] == ["complete", "complete"]
    first_writer.close()
    second_writer.close()
