"""Promise 1: upstream and client see what they would see without a proxy between them."""

import asyncio
import gzip
import hashlib
import itertools
from collections.abc import Awaitable, Callable

import pytest

from tests.e2e.conftest import Proxy, Upstream

StartProxy = Callable[..., Awaitable[Proxy]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"


def split_head(answer: bytes) -> tuple[list[bytes], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body


def without_ours(lines: list[bytes]) -> list[bytes]:
    return [line for line in lines if not line.startswith((b"Clearpane-Id: ", b"Server-Timing: clearpane;", b"Connection: close"))]


async def test_the_upstream_sees_the_request_as_it_was_sent(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(OK)
    body = gzip.compress(b'{"model":"m"}')
    await proxy.call(
        b"POST /v1/%%7e/x%%20y?q=%%c3&q= HTTP/1.1\r\nHost: proxy.local\r\nX-MiXed: 1\r\nx-mixed: 2\r\n"
        b"X-Latin: caf\xe9\r\nX-Utf: caf\xc3\xa9\r\nAuthorization: Bearer k\r\nContent-Encoding: gzip\r\n"
        b"Helicone-User-Id: u\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )  # fmt: skip
    assert bytes(upstream.received[0]) == (
        b"POST /v1/%%7e/x%%20y?q=%%c3&q= HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-MiXed: 1\r\nx-mixed: 2\r\n"
        b"X-Latin: caf\xe9\r\nX-Utf: caf\xc3\xa9\r\nAuthorization: Bearer k\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (upstream.port, len(body), body)
    )  # fmt: skip


ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nX-ODD: \xe9\r\nContent-Length: 5\r\n\r\nhello",
    "chunked": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"7;x=1\r\ndata: a\r\n1\r\n\n\r\n0\r\nX-T: 1\r\n\r\n",
    "gzip that is none": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified": b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 99\r\n\r\n',
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/x\r\nContent-Length: 0\r\n\r\n",
    "upstream's error": b'HTTP/1.1 429 Slow Down Please\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\n{"a": 1}\n',
    "odd status": b"HTTP/1.1 529 \r\nContent-Length: 0\r\n\r\n",
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
    "until close": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it",
    "fat header": b"HTTP/1.1 200 OK\r\nX-Fat: " + b"a" * 60_000 + b"\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_the_client_sees_the_answer_as_it_was_sent(name: str, proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(ANSWERS[name])
    answer = await proxy.call(POST)
    lines, body = split_head(answer)
    sent_lines, sent_body = split_head(ANSWERS[name])
    assert without_ours(lines) == sent_lines
    if name == "early hints":
        final, final_body = split_head(body)
        assert (without_ours(final), final_body) == ([b"HTTP/1.1 200 OK", b"Content-Length: 1"], b"x")
    else:
        assert body == sent_body
        assert any(line.startswith(b"Clearpane-Id: ") for line in lines)


@pytest.mark.parametrize("name", [name for name in ANSWERS if name != "fat header"])
async def test_one_byte_at_a_time_makes_no_difference(name: str, proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(*[ANSWERS[name][i : i + 1] for i in range(len(ANSWERS[name]))])
    lines, body = split_head(await proxy.call(POST))
    sent_lines, sent_body = split_head(ANSWERS[name])
    assert without_ours(lines) == sent_lines
    assert body[-1:] == sent_body[-1:]


async def test_the_record_has_the_bytes_of_both_sides(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(ANSWERS["chunked"])
    await proxy.call(POST)
    facts, request, response = await proxy.record()
    assert (request, response) == (b"{}", b"data: a\n")
    assert facts["response"]["end"] == "complete"
    assert facts["response"]["body_sha256"] == hashlib.sha256(b"data: a\n").hexdigest()
    assert facts["response"]["streamed"] is True
    assert facts["timing"]["proxy_ms"] is not None


async def test_every_chunk_is_passed_on_when_it_comes(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"2\r\n%02d\r\n" % n for n in range(5)], b"0\r\n\r\n", pause_s=0.05
    )
    reader, writer = await proxy.connect()
    writer.write(POST)
    await reader.readuntil(b"\r\n\r\n")
    loop = asyncio.get_running_loop()
    times = []
    for number in range(5):
        assert await reader.readexactly(7) == b"2\r\n%02d\r\n" % number
        times.append(loop.time())
    assert all(later - earlier > 0.02 for earlier, later in itertools.pairwise(times))
    writer.close()


async def test_a_body_that_comes_in_pieces_is_passed_on_before_it_is_complete(proxy: Proxy, upstream: Upstream) -> None:
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(3):
            seen.put_nowait(await reader.readexactly(3))
        writer.write(OK)

    upstream.script = script
    reader, writer = await proxy.connect()
    writer.write(b"POST /v1/x HTTP/1.1\r\nHost: p\r\nContent-Length: 9\r\nConnection: close\r\n\r\n")
    for piece in (b"abc", b"def", b"ghi"):
        writer.write(piece)
        assert await asyncio.wait_for(seen.get(), 5) == piece
    assert (await reader.read(-1)).endswith(b"ok")
    assert (await proxy.record())[1] == b"abcdefghi"
    writer.close()


async def test_a_chunked_request_stays_chunked(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(OK)
    await proxy.call(
        b"POST /v1/x HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    head, _, body = bytes(upstream.received[0]).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    assert body in {b"5\r\nabcde\r\n0\r\n\r\n", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"}
    assert (await proxy.record())[1] == b"abcde"


async def test_expect_is_answered_and_not_sent_on(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(OK)
    reader, writer = await proxy.connect()
    writer.write(b"POST /v1/x HTTP/1.1\r\nHost: p\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n")
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{}")
    assert (await reader.read(-1)).endswith(b"ok")
    assert b"xpect" not in upstream.received[0]
    writer.close()


async def test_keep_alive_and_pipelining_on_one_connection(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(OK, keep=True)
    reader, writer = await proxy.connect()
    request = POST.replace(b"Connection: close\r\n", b"")
    writer.write(request * 40)
    for _ in range(40):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert await reader.readexactly(2) == b"ok"
    writer.close()
    assert len(upstream.received) == 41  # and one that waits for the next
    assert upstream.connections == 1
    assert len({facts["request_id"] for facts, _, _ in proxy.spool.records}) == 40


async def test_an_http_1_0_client_gets_no_chunks(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(ANSWERS["chunked"])
    lines, body = split_head(await proxy.call(b"GET /v1/models HTTP/1.0\r\nHost: p\r\n\r\n"))
    assert body == b"data: a\n"
    assert not any(line.lower().startswith(b"transfer-encoding") for line in lines)


async def test_head_has_the_length_and_no_body(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    lines, body = split_head(await proxy.call(b"HEAD /v1/models HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n"))
    assert b"Content-Length: 5" in lines
    assert body == b""
