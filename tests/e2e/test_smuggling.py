"""Requests that two parsers could read in two ways: refused, or exactly one request reaches the upstream."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from proxy.client import assert_c_parser
from tests.e2e.conftest import Proxy, Upstream

StartProxy = Callable[..., Awaitable[Proxy]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
INNER = b"GET /v1/smuggled HTTP/1.1\r\nHost: p\r\n\r\n"
UPGRADE = b"GET /v1/realtime HTTP/1.1\r\nHost: p\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
UPGRADE += b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
LINE = b"POST /v1/x HTTP/1.1\r\nHost: p\r\n"

REFUSED = {
    "length and coding": LINE + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "coding and length": LINE + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + INNER,
    "two lengths": LINE + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde" + INNER,
    "equal lengths": LINE + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd" + INNER,
    "length list": LINE + b"Content-Length: 4, 4\r\n\r\nabcd" + INNER,
    "signed length": LINE + b"Content-Length: +4\r\n\r\nabcd" + INNER,
    "negative length": LINE + b"Content-Length: -4\r\n\r\n" + INNER,
    "hexadecimal length": LINE + b"Content-Length: 0x4\r\n\r\nabcd" + INNER,
    "empty length": LINE + b"Content-Length:\r\n\r\nabcd" + INNER,
    "length with letters": LINE + b"Content-Length: 4a\r\n\r\nabcd" + INNER,
    "length beyond all bounds": LINE + b"Content-Length: 99999999999999999999999\r\n\r\nabcd",
    "xchunked": LINE + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + INNER,
    "chunked, identity": LINE + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + INNER,
    "gzip, chunked": LINE + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two codings": LINE + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "space before colon": LINE + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + INNER,
    "tab before colon": LINE + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "vertical tab": LINE + b"Transfer-Encoding\x0b: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "coding with HTTP/1.0": b"POST /v1/x HTTP/1.0\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "folded line": LINE + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "folded coding": LINE + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + INNER,
    "bare line feeds": b"POST /v1/x HTTP/1.1\nHost: p\nContent-Length: 0\n\n",
    "bare carriage return": LINE + b"X: a\rTransfer-Encoding: chunked\r\n\r\n",
    "NUL in a value": LINE + b"X: a\x00b\r\n\r\n",
    "NUL in a name": LINE + b"X\x00Y: a\r\n\r\n",
    "two hosts": b"GET /v1/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no host": b"GET /v1/x HTTP/1.1\r\n\r\n",
    "malformed host": b"GET /v1/x HTTP/1.1\r\nHost: a b/c\r\n\r\n",
    "empty host": b"GET /v1/x HTTP/1.1\r\nHost:\r\n\r\n",
    "empty header name": LINE + b": a\r\n\r\n",
    "no colon": LINE + b"nonsense\r\n\r\n",
    "chunk size 0x2": LINE + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nab\r\n0\r\n\r\n" + INNER,
    "chunk size +2": LINE + b"Transfer-Encoding: chunked\r\n\r\n+2\r\nab\r\n0\r\n\r\n" + INNER,
    "chunk size -1": LINE + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nab\r\n0\r\n\r\n" + INNER,
    "chunk longer than its size": LINE + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n" + INNER,
    "line feed in a chunk extension": LINE + b"Transfer-Encoding: chunked\r\n\r\n2;a\nb\r\nab\r\n0\r\n\r\n" + INNER,
    "chunk ended by a bare line feed": LINE + b"Transfer-Encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n" + INNER,
    "lower-case method": b"post /v1/x HTTP/1.1\r\nHost: p\r\nContent-Length: 0\r\n\r\n",
    "spaces in the target": b"GET /v1/x y HTTP/1.1\r\nHost: p\r\n\r\n",
    "absolute target": b"GET http://evil.test/v1/x HTTP/1.1\r\nHost: p\r\n\r\n",
    "double slash": b"GET //evil.test/v1/x HTTP/1.1\r\nHost: p\r\n\r\n",
    "authority target": b"CONNECT evil.test:443 HTTP/1.1\r\nHost: p\r\n\r\n",
    "HTTP/2.0": b"GET /v1/x HTTP/2.0\r\nHost: p\r\n\r\n",
    "HTTP/3": b"GET /v1/x HTTP/3\r\nHost: p\r\n\r\n",
    "upgrade with a body": UPGRADE.replace(b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n" % len(INNER)) + INNER,
    "upgrade with chunks": UPGRADE.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n") + INNER,
    "upgrade of a POST": UPGRADE.replace(b"GET", b"POST"),
    "upgrade to one of two": UPGRADE.replace(b"websocket", b"websocket, h2c"),
    "upgrade to TLS": UPGRADE.replace(b"websocket", b"TLS/1.0"),
    "h2c": b"GET /v1/x HTTP/1.1\r\nHost: p\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
    "head too large": LINE + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    "too many headers": LINE + b"".join(b"X-%d: a\r\n" % n for n in range(400)) + b"\r\n",
}  # fmt: skip


async def drive(proxy: Proxy, request: bytes) -> bytes:
    """All that comes back until the proxy closes or falls silent."""
    reader, writer = await proxy.connect()
    writer.write(request)
    answer = b""
    try:
        async with asyncio.timeout(0.7):
            while piece := await reader.read(65536):
                answer += piece
    except (TimeoutError, ConnectionError):
        pass
    writer.close()
    return answer


def requests_at(upstream: Upstream) -> int:
    return sum(bytes(received).count(b" HTTP/1.1\r\nHost: 127.0.0.1") for received in upstream.received)


@pytest.mark.parametrize("name", REFUSED)
async def test_refused_and_nothing_smuggled(name: str, proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(OK, keep=True)
    answer = await drive(proxy, REFUSED[name])
    assert b"/v1/smuggled" not in b"".join(bytes(received) for received in upstream.received)
    assert requests_at(upstream) <= 1
    if requests_at(upstream) == 0:
        assert answer[9:12] in {b"400", b"404", b"413", b"501"}, answer[:200]
        assert b'"source":"proxy"' in answer
    else:  # the head was fine; the body's framing was not: the upstream never sees a complete request
        assert b"0\r\n\r\n" not in upstream.received[0]
        assert b"200 OK" not in answer


ONE = {
    "leading zeros in the length": LINE + b"Content-Length: 0004\r\n\r\nabcd",
    "a GET with a body": b"GET /v1/x HTTP/1.1\r\nHost: p\r\nContent-Length: 4\r\n\r\nabcd",
    "trailers": LINE + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Trailer: b\r\n\r\n",
    "a chunk extension": LINE + b"Transfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\n\r\n",
    "a body that looks like a request": LINE + b"Content-Length: %d\r\n\r\n%b" % (len(INNER), INNER),
    "CHUNKED in capitals": LINE + b"Transfer-Encoding: CHUNKED\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "an upgrade that the upstream declines": UPGRADE,
    "connection names the framing": LINE + b"Connection: content-length\r\nContent-Length: 4\r\n\r\nabcd",
}


@pytest.mark.parametrize("name", ONE)
async def test_exactly_one_request_arrives(name: str, proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(OK, keep=True)
    answer = await drive(proxy, ONE[name])
    assert requests_at(upstream) == 1
    assert upstream.connections == 1
    assert answer.count(b"HTTP/1.1 200 OK") == 1


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


async def test_a_body_over_the_bound_is_refused(start_proxy: StartProxy, upstream: Upstream) -> None:
    proxy = await start_proxy(request_bytes_max=10_000)
    upstream.answers(OK, keep=True)
    assert (await drive(proxy, LINE + b"Content-Length: 10001\r\n\r\n"))[9:12] == b"413"
    assert upstream.connections == 0
    chunked = LINE + b"Transfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b"a" * 4096 + b"\r\n"
    reader, writer = await proxy.connect()
    writer.write(chunked + b"1000\r\n" + b"a" * 4096 + b"\r\n")
    await asyncio.sleep(0.1)
    writer.write(b"1000\r\n" + b"a" * 4096 + b"\r\n0\r\n\r\n")
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)).startswith(b"HTTP/1.1 413")
    assert (await proxy.record(1))[0]["response"]["end"] == "client_error"
    writer.close()


async def test_a_dripping_body_is_ended(start_proxy: StartProxy, upstream: Upstream) -> None:
    proxy = await start_proxy(request_timeout_s=1.0)
    upstream.answers(OK, keep=True)
    reader, writer = await proxy.connect()
    writer.write(LINE + b"Content-Length: 10\r\n\r\nabc")
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)).startswith(b"HTTP/1.1 408")
    writer.close()


async def test_a_dripping_head_is_ended(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(keepalive_timeout_s=1.0)
    reader, writer = await proxy.connect()
    writer.write(b"POST /v1/x HTTP/1.1\r\nHost: p\r\nX-Dr")
    assert await asyncio.wait_for(reader.read(-1), 5) == b""
    writer.close()


async def test_more_connections_than_the_bound_get_503(start_proxy: StartProxy, upstream: Upstream) -> None:
    proxy = await start_proxy(connections_max=2)
    upstream.answers(OK, keep=True)
    open_ones = [await proxy.connect() for _ in range(3)]
    await asyncio.sleep(0.05)
    reader, writer = open_ones[2]
    writer.write(LINE + b"Content-Length: 2\r\n\r\n{}")
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)).startswith(b"HTTP/1.1 503")
    for _, writer in open_ones:
        writer.close()


def test_the_compiled_parser_is_there() -> None:
    assert_c_parser()
