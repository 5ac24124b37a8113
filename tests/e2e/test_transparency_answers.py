"""Promise 1, downwards: the same exchange directly and through the proxy; the client sees the same bytes.

Every two values of two dimensions meet in some case. What may differ is `differences.at_client`, and nothing else.
"""

import gzip
import random

import brotli
import pytest
from prometheus_client import REGISTRY

from tests.e2e.conftest import Proxy
from tests.e2e.differences import at_client, without_ours
from tests.e2e.pairs import Case, named, pairwise
from tests.e2e.wire import Answer, Origin, connect, exchange, read_answer, split_at

try:
    from compression import zstd
except ImportError:  # before Python 3.14
    from backports import zstd

# Comments, both line ends, a byte order mark, UTF-8 cut inside its characters, NULs, lines that look like framing.
EVENTS = [b"\xef\xbb", b'\xbfdata: {"a": "caf\xc3', b'\xa9"}\n\n', b": comment\r\n\r\n", b"data: \xf0\x9f\x98", b"\x80\r\n\r\n",
          b"event: x\ndata: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", b"\0\xff\xfe", b"data: [DONE]\n\n"]  # fmt: skip
BODIES = {
    "empty": [],
    "one byte": [b"x"],
    "one-byte pieces": [b"%c" % byte for byte in b'{"choices": [{"delta": {"content": "one byte at a time"}}]}'],
    "events": EVENTS,
    "binary": [random.Random(size).randbytes(size) for size in (1, 16_384, 65_537, 3)],
}
ENCODINGS = {
    "identity": lambda body: body,
    "gzip": lambda body: gzip.compress(body, mtime=0),
    "br": brotli.compress,
    "zstd": zstd.compress,
    "x-unknown": lambda body: body[::-1],
}
HEADERS = {
    "plain": [b"Content-Type: text/event-stream", b"Cache-Control: no-store"],
    "duplicates": [b"X-Twice: 1", b"Vary: a", b"X-Twice: 2", b"vary: b", b"X-Twice: 1"],
    "odd spelling": [b"x-LOWER-upper: 1", b"CONTENT-TYPE: TEXT/plain", b"X_Under.score~!#: 1"],
    "not ASCII": [b"X-Latin: caf\xe9", b"X-Utf8: caf\xc3\xa9", b"X-Odd: \xff\xfe\x80"],
    "empty and spaces": [b"X-Empty:", b"X-Blank:   ", b"X-Wide:\t a \t b\t ", b"X-Tight:a"],
    "one of 60 KB": [b"X-Fat: " + b"a" * 60_000],
    "many": [b"X-%d: %d" % (number, number) for number in range(200)],
    "cookies": [b"Set-Cookie: a=1; Path=/", b"set-cookie: b=2", b"Set-Cookie: a=3; HttpOnly"],
    "of the hop": [b"Connection: keep-alive, X-Of-The-Hop", b"X-Of-The-Hop: 1", b"Keep-Alive: timeout=5", b"Upgrade: h2c", b"X-After: 1"],
    "like ours": [b"Server: up", b"Date: Sat, 21 Nov 2026 00:00:00 GMT", b"Server-Timing: up;dur=1", b"Via: 1.1 up", b"Age: 1"],
}
DIMENSIONS = {
    "framing": ["length", "chunked", "extensions", "trailers", "close", "none", "none, chunked"],
    "encoding": list(ENCODINGS),
    "status": [
        "200 OK", "201 Created", "206 Partial Content", "302 Found", "404 ", "429 Slow Down, Please", "500 Oh", "529", "204 No", "304 Not",
        "200", "600 Odd", "999 ",
    ],
    "headers": list(HEADERS),
    "body": list(BODIES),
    "before": ["nothing", "103", "two hints", "100"],
    "delivery": ["in one", "head, body", "pieces", "split anywhere"],
    "method": ["GET", "POST", "HEAD"],
    "version": ["HTTP/1.1", "HTTP/1.1", "HTTP/1.0"],
}  # fmt: skip
BEFORE = {
    "nothing": b"",
    "103": b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n",
    "two hints": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nlink: </y>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n",
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
}


def fits(case: Case) -> bool:
    bodiless = case["status"][:3] in {"204", "304"} or case["method"] == "HEAD"
    if bodiless != (case["framing"] in {"none", "none, chunked"}):
        return False
    if case["framing"] == "none, chunked" and case["method"] != "HEAD":
        return False
    if case["version"] == "HTTP/1.0" and (case["framing"] not in {"length", "close"} or case["before"] != "nothing"):
        return False
    return not bodiless or case["body"] == "empty"


def framed(case: Case) -> tuple[list[bytes], list[bytes]]:
    """The header lines that frame the body, and its pieces on the wire."""
    pieces = list(BODIES[case["body"]])
    packed = ENCODINGS[case["encoding"]](b"".join(pieces)) if case["encoding"] != "identity" else b"".join(pieces)
    pieces = split_at(packed, [len(packed) * n // max(len(pieces), 1) for n in range(len(pieces))]) if packed else []
    framing = case["framing"]
    if framing == "none":
        return ([b"Content-Length: 99"] if case["status"][:3] == "304" or case["method"] == "HEAD" else []), []
    if framing == "none, chunked":
        return [b"Transfer-Encoding: chunked"], []
    if framing == "close":
        return [], pieces
    if framing == "length":
        return [b"content-length: %d" % len(packed)], pieces
    extension = b';a=1;b="x y"' if framing == "extensions" else b""
    end = b"0\r\nX-Sum: 1\r\nx-sum: caf\xe9\r\n\r\n" if framing == "trailers" else b"0%b\r\n\r\n" % extension
    return [b"TRANSFER-ENCODING: Chunked"], [*(b"%X%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces), end]


def answer_of(case: Case) -> Answer:
    lines, pieces = framed(case)
    encoding = [] if case["encoding"] == "identity" else [b"Content-Encoding: " + case["encoding"].encode()]
    head = b"\r\n".join([f"{case['version']} {case['status']}".encode(), *lines, *HEADERS[case["headers"]], *encoding, b"", b""])
    head = BEFORE[case["before"]] + head
    whole = b"".join([head, *pieces])
    chance = random.Random(len(whole))
    sent = {
        "in one": [whole],
        "head, body": [head, b"".join(pieces)],
        "pieces": [head, *pieces],
        "split anywhere": split_at(whole, [chance.randrange(len(whole)) for _ in range(40)]),
    }[case["delivery"]]
    return Answer([piece for piece in sent if piece], "fin" if case["framing"] == "close" or case["version"] == "HTTP/1.0" else "keep")


CASES = pairwise(DIMENSIONS, fits)


@pytest.mark.parametrize("case", CASES, ids=named)
async def test_the_client_sees_what_it_would_see_directly(case: Case, origin: Origin, through: Proxy) -> None:
    origin.answer = lambda request: answer_of(case)
    method = case["method"].encode()
    request = method + b" /v1/chat/completions HTTP/1.1\r\nHost: p\r\n" + (b"Content-Length: 2\r\n\r\n{}" if method == b"POST" else b"\r\n")
    direct = await exchange(origin.port, request, method=method)
    assert direct[-1].whole
    seen = await exchange(through.port, request, method=method)
    assert without_ours(seen) == at_client(direct)


def test_the_table_has_every_pair() -> None:
    """As many cases as the two longest dimensions ask for, and no value is missing."""
    assert len(CASES) >= len(DIMENSIONS["status"]) * len(DIMENSIONS["headers"])
    for name, values in DIMENSIONS.items():
        assert {case[name] for case in CASES} == set(values)


async def test_all_answers_of_the_table_in_a_row_on_one_connection(origin: Origin, through: Proxy) -> None:
    """What an answer leaves behind must not touch the next: one client, whose connection ends only where an answer has no other end."""
    wire = await connect(through.port)
    for case in CASES:
        origin.answer = lambda request, case=case: answer_of(case)
        method = case["method"].encode()
        direct = await exchange(origin.port, method + b" /v1/x HTTP/1.1\r\nHost: p\r\n\r\n", method=method)
        await wire.write(method + b" /v1/x HTTP/1.1\r\nHost: p\r\n\r\n")
        assert without_ours(await read_answer(wire, method)) == at_client(direct)
        if case["framing"] == "close":
            await wire.ended()
            wire.close()
            wire = await connect(through.port)
        assert wire.end is None
        assert not wire.buffer
    wire.close()


async def test_a_status_beyond_599_is_recorded_and_counted_as_it_is(origin: Origin, through: Proxy) -> None:
    def counted(digit: int) -> float:
        through.server._tally.tell(0)
        labels = {"upstream": "default", "status": f"{digit}xx", "end": "complete"}
        return REGISTRY.get_sample_value("clearpane_proxy_calls_total", labels) or 0.0

    for number, status in enumerate((600, 999)):
        origin.answer = lambda request, status=status: Answer([b"HTTP/1.1 %d Odd\r\nContent-Length: 2\r\n\r\nok" % status])
        before = counted(status // 100)
        await exchange(through.port, b"GET /v1/x HTTP/1.1\r\nHost: p\r\n\r\n")
        facts, _, answer = await through.record(number)
        assert (facts["response"]["status"], facts["response"]["end"], answer) == (status, "complete", b"ok")
        assert counted(status // 100) == before + 1


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_a_big_answer_is_relayed_to_its_last_byte(framing: str, pytestconfig: pytest.Config, origin: Origin, through: Proxy) -> None:
    """8 MB, 100 MB with --full; in pieces of every size, none of them aligned with anything."""
    size = (100 if pytestconfig.getoption("full") else 8) << 20
    chance = random.Random(7)
    block = chance.randbytes(1 << 20)
    sizes = [chance.choice([1, 2, 4095, 65_537, 1 << 20]) for _ in range(size >> 18)]
    pieces = [block[:count] for count in sizes]
    head = b"HTTP/1.1 200 OK\r\n"
    if framing == "length":
        head += b"Content-Length: %d\r\n" % sum(sizes)
    if framing == "chunked":
        head += b"Transfer-Encoding: chunked\r\n"
        pieces = [*(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces), b"0\r\n\r\n"]
    origin.answer = lambda request: Answer([head + b"\r\n", *pieces], "fin" if framing == "close" else "keep")
    (seen,) = await exchange(through.port, b"GET /v1/files/x/content HTTP/1.1\r\nHost: p\r\n\r\n")
    assert seen.whole
    assert seen.body == b"".join(pieces)
