"""Promise 1: nothing is delayed; the record has what both sides saw; what differs is described."""

import asyncio
import hashlib
import itertools
import re
from pathlib import Path

from tests.e2e.conftest import Proxy, Upstream

ROOT = Path(__file__).parents[2]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"7;x=1\r\ndata: a\r\n1\r\n\n\r\n0\r\nX-T: 1\r\n\r\n"
)


async def test_the_record_has_the_bytes_of_both_sides(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(CHUNKED)
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


def test_every_difference_that_is_described_is_held_by_a_test() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\| `(\w+)` \|$", (ROOT / "docs/transparency.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests/e2e").glob("test_*.py"))
    assert [name for _, name in rows if f"def {name}(" not in tests] == []
