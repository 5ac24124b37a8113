"""Promise 1, upwards: whatever way a request arrives, the upstream gets the request that was sent.

Every shape goes through one connection in all the ways that could take another path in a worker: whole, head and
body apart, in pieces, once more, with another length, with its lines in another order, two in one write.
What may differ is `differences.at_upstream`, and nothing else.
"""

import asyncio
import gzip
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.e2e.conftest import Proxy
from tests.e2e.differences import as_seen, at_client, at_upstream, request_of, without_ours
from tests.e2e.pairs import Case, named, pairwise
from tests.e2e.wire import Answer, Message, Origin, connect, joined, parse_lines, read_answer, split_at

# A shape up to this size is also sent byte by byte.
BYTEWISE_BYTES_MAX = 700


@dataclass(frozen=True)
class Shape:
    """A request before it is bytes. `chunk_bytes`: how its payload is cut into chunks; None: a content-length, or nothing."""

    method: bytes
    target: bytes
    lines: tuple[bytes, ...]
    payload: bytes
    chunk_bytes: int | None = None
    extension: bytes = b""
    trailers: bytes = b""
    version: bytes = b"HTTP/1.1"
    bodiless: bool = False

    @property
    def raw(self) -> bytes:
        first = b" ".join((self.method, self.target, self.version))
        if self.chunk_bytes is None:
            framing = () if self.bodiless else (b"content-LENGTH:%d" % len(self.payload),)
            return joined(first, *self.lines, *framing) + self.payload
        cut = [self.payload[at : at + self.chunk_bytes] for at in range(0, len(self.payload), self.chunk_bytes)]
        chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), self.extension, chunk) for chunk in cut)
        return joined(first, *self.lines, b"Transfer-Encoding: chunked") + chunks + b"0%b\r\n%b\r\n" % (self.extension, self.trailers)


METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "PROPFIND"]
TARGETS = {
    "plain": b"/v1/chat/completions",
    "escaped": b"/v1/a%2Fb%2f%7e~%20/%C3%a9?q=%zz&q=&=",
    "odd": b"/v1//x/../y/./;a=1/*:@!$'(),|^`{}\"<>[]",
    "empty query": b"/v1/x?",
    "between spaces": b"  /v1/x?a=b ",
    "query of a URL": b"/v1/x?url=http://evil.test//v1?y#".rstrip(b"#"),
    "very long": b"/v1/x?" + b"a=1&" * 8_000,
}
HEADERS = {
    "plain": (b"Host: p", b"Content-Type: application/json", b"Authorization: Bearer sk-x"),
    "duplicates": (b"Host: p", b"X-Twice: 1", b"Accept: a", b"x-twice: 2", b"X-TWICE: 1", b"Accept: b"),
    "odd spelling": (b"hOST: p", b"x-LOWER-upper: 1", b"CONTENT-TYPE: TEXT/plain", b"X_Under.score~!#: 1"),
    "not ASCII": (b"Host: p", b"X-Latin: caf\xe9", b"X-Utf8: caf\xc3\xa9", b"X-Odd: \xff\xfe\x80"),
    "empty and spaces": (b"X-Empty:", b"X-Blank:   ", b"Host:\t p", b"X-Wide:\t a \t b\t ", b"X-Tight:a"),
    "one of 60 KB": (b"Host: p", b"X-Fat: " + b"a" * 60_000),
    "many": (b"Host: p", *(b"X-%d: %d" % (number, number) for number in range(240))),
    "cookies": (b"Host: p", b"Cookie: a=1; b=2", b'cookie: c="3,4"; ;=', b"Cookie:"),
    "of the hop": (b"Connection: keep-alive, X-Hop , authorization", b"Host: p", b"X-Hop: 1", b"Keep-Alive: 5", b"TE: trailers",
                   b"Proxy-Authorization: Basic eA==", b"Authorization: Bearer sk-x", b"Trailer: X-Sum", b"X-After: 1"),
    "ours": (b"Host: p", b"Helicone-User-Id: u", b"X-Between: 1", b"CLEARPANE-Session-Id: s", b"Clearpane-Property-A: 1"),
    "that proxies add": (b"Host: p:8080", b"X-Forwarded-For: 1.2.3.4", b"Forwarded: for=x", b"Via: 1.1 x", b"Content-Encoding: gzip",
                         b"Expect-CT: 1", b"Range: bytes=0-1", b"If-None-Match: *", b"Accept-Encoding: gzip;q=0, br"),
}  # fmt: skip
BODIES = {
    "empty": b"",
    "one byte": b"{",
    "JSON": b'{"model": "m", "messages": [{"role": "user", "content": "caf\xc3\xa9 \\u0000"}]}',
    "every byte": bytes(range(256)),
    "a request": b"POST /v1/inner HTTP/1.1\r\nHost: p\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "gzip": gzip.compress(b"0" * 100_000, mtime=0),
    "300 KB": random.Random(3).randbytes(300_000),
}
DIMENSIONS = {
    "method": METHODS,
    "target": list(TARGETS),
    "headers": list(HEADERS),
    "body": list(BODIES),
    "framing": ["none", "length", "chunked", "tiny chunks", "extensions"],
}


def fits(case: Case) -> bool:
    if case["framing"] == "none":
        return case["body"] == "empty"
    return case["framing"] != "tiny chunks" or case["body"] != "300 KB"


def shape_of(case: Case) -> Shape:
    framing = case["framing"]
    return Shape(
        method=case["method"].encode(),
        target=TARGETS[case["target"]],
        lines=HEADERS[case["headers"]],
        payload=BODIES[case["body"]],
        chunk_bytes={"none": None, "length": None, "tiny chunks": 1}.get(framing, 70_000),
        extension=b';a=1;b="x"' if framing == "extensions" else b"",
        bodiless=framing == "none",
    )


def echo(request: Message) -> Answer:
    """An answer that fits one request only."""
    body = request.first[:80] + b" " + hashlib.sha256(request.payload).hexdigest().encode()
    head = b"HTTP/1.1 200 OK\r\nX-Lines: %d\r\nContent-Length: %d\r\n\r\n" % (len(request.lines), len(body))
    return Answer([head if request.first.startswith(b"HEAD") else head + body])


def ways(shape: Shape) -> Iterator[tuple[list[Shape], list[bytes]]]:
    """The requests that go out, and the writes that carry them."""
    raw = shape.raw
    chance = random.Random(len(raw))
    cuts = range(len(raw)) if len(raw) <= BYTEWISE_BYTES_MAX else [chance.randrange(len(raw)) for _ in range(30)]
    head_ends = raw.index(b"\r\n\r\n") + 4
    other = shape if shape.bodiless else replace(shape, payload=shape.payload + b"+")
    turned = replace(shape, lines=shape.lines[::-1])
    yield [shape], [raw]
    yield [shape], [raw]
    yield [shape], split_at(raw, [head_ends])
    yield [shape], split_at(raw, list(cuts))
    yield [shape], split_at(raw, [len(raw) - 1])
    yield [other], [other.raw]
    yield [turned], [turned.raw]
    yield [shape, other], [raw + other.raw]
    yield [turned, shape], split_at(turned.raw + raw, [len(turned.raw) + 1])
    yield [shape], [raw]


@pytest.mark.parametrize("case", pairwise(DIMENSIONS, fits), ids=named)
async def test_the_upstream_sees_what_it_would_see_directly(case: Case, origin: Origin, through: Proxy) -> None:
    origin.answer = echo
    host = b"127.0.0.1:%d" % origin.port
    wire = await connect(through.port)
    for shapes, writes in ways(shape_of(case)):
        origin.requests.clear()
        await wire.write(*writes)
        ends = shapes[0].chunk_bytes is not None and (len(shapes) > 1 or shapes[0].extension != b"")
        served = shapes[:1] if ends else shapes
        answers = [await read_answer(wire, shape.method) for shape in served]
        sent = [at_upstream(request_of(shape.raw, shape.payload), host) for shape in served]
        assert [as_seen(received) for received in origin.requests] == sent
        assert [without_ours(answer) for answer in answers] == [answer_to(request) for request in sent]
        if ends:
            await wire.ended()
            wire.close()
            wire = await connect(through.port)
    assert wire.end is None
    wire.close()


def answer_to(request: Message) -> list[Message]:
    """What the client sees of `echo`."""
    head, _, body = b"".join(echo(request).pieces).partition(b"\r\n\r\n")
    message = parse_lines(head)
    message.body, message.payload, message.whole = body, body, True
    return at_client([message])


# Any split

TOKENS = st.sampled_from([b"x-a", b"X-A", b"accept", b"Content-Encoding", b"Helicone-User-Id", b"Connection", b"Range"])
VALUES = st.sampled_from([b"", b"1", b"keep-alive", b"a, b", b"caf\xe9", b"chunked", b"  wide\t", b"0\t1"])
SHAPES = st.builds(
    Shape,
    method=st.sampled_from([b"GET", b"POST", b"PUT", b"HEAD"]),
    target=st.sampled_from([b"/v1/x", b"/v1/x?y=1", b"/v1/%2F", b"/v1/chat/completions"]),
    lines=st.lists(st.builds(lambda name, value: name + b": " + value, TOKENS, VALUES), max_size=4).map(lambda lines: (b"Host: p", *lines)),
    payload=st.binary(max_size=40),
    chunk_bytes=st.none() | st.integers(1, 50),
    extension=st.sampled_from([b"", b";x", b";x=y"]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=st.lists(SHAPES, min_size=1, max_size=3), cuts=st.lists(st.integers(0, 1 << 16), max_size=12))
@example(shapes=[Shape(b"POST", b"/v1/x", (b"Host: p",), b"ab")] * 2, cuts=list(range(200)))
@example(shapes=[Shape(b"POST", b"/v1/x", (b"Host: p",), b"ab", 1)] * 2, cuts=list(range(200)))
async def test_any_split_of_the_bytes_gives_the_same_requests_and_answers(
    shapes: list[Shape], cuts: list[int], origin: Origin, through: Proxy
) -> None:
    origin.answer = echo
    origin.requests.clear()
    wire = await connect(through.port)
    await wire.write(*split_at(b"".join(shape.raw for shape in shapes), cuts))
    answers = [answer for shape in shapes if (answer := await read_answer(wire, shape.method))[-1].first]
    wire.close()
    if len(answers) < len(shapes):  # the connection ends with the answer to a chunked request that others stand behind
        assert shapes[len(answers) - 1].chunk_bytes is not None
    served = shapes[: len(answers)]
    assert served
    sent = [at_upstream(request_of(shape.raw, shape.payload), b"127.0.0.1:%d" % origin.port) for shape in served]
    assert [as_seen(received) for received in origin.requests] == sent
    assert [without_ours(answer) for answer in answers] == [answer_to(request) for request in sent]


# Requests that have no place in the table


@pytest.mark.parametrize("close", [b"Connection: close", b"Connection: Close, x", b"connection: x,\tCLOSE"])
async def test_a_client_that_says_close_gets_one_answer_and_the_end(close: bytes, origin: Origin, through: Proxy) -> None:
    origin.answer = echo
    shape = Shape(b"POST", b"/v1/x", (b"Host: p", close), b"{}")
    for writes in ([shape.raw], split_at(shape.raw, range(len(shape.raw))), [shape.raw, shape.raw], [shape.raw + b"\r\n"]):
        origin.requests.clear()
        wire = await connect(through.port)
        await wire.write(*writes)
        (answer,) = await read_answer(wire)
        await wire.ended()
        wire.close()
        assert b"Connection: close" in answer.lines
        assert without_ours([answer]) == answer_to(at_upstream(request_of(shape.raw, b"{}"), b"127.0.0.1:%d" % origin.port))
        assert not wire.buffer
        assert len(origin.requests) == 1


async def test_what_stands_behind_a_request_that_says_close_is_never_served(origin: Origin, through: Proxy) -> None:
    """A client must not send it (RFC 9112 section 9.6); in one read with the request it may cost the request too."""
    shape = Shape(b"POST", b"/v1/x", (b"Host: p", b"Connection: close"), b"{}")
    wire = await connect(through.port)
    await wire.write(shape.raw + shape.raw)
    (answer,) = await read_answer(wire)
    await wire.ended()
    assert not wire.buffer
    assert (answer.first[9:12], len(origin.requests)) in {(b"400", 0), (b"200", 1)}


@pytest.mark.parametrize(
    "name",
    [
        b"Content-Length",
        b"Content-Location",
        b"Content-Range",
        b"Content-Type",
        b"ETag",
        b"Host",
        b"Max-Forwards",
        b"Server",
        b"User-Agent",
    ],
)
async def test_two_lines_of_a_header_that_may_stand_once_are_refused(name: bytes, origin: Origin, through: Proxy) -> None:
    shape = Shape(b"POST", b"/v1/x", (b"Host: p", name + b": 2", b"X: 1", name.lower() + b": 2"), b"{}")
    wire = await connect(through.port)
    await wire.write(shape.raw)
    (answer,) = await read_answer(wire)
    assert (answer.first[9:12], answer.values(b"clearpane-error"), origin.requests) == (b"400", [b"request_malformed"], [])


@pytest.mark.parametrize("target", [b"/v1/caf\xc3\xa9", b"/v1/x?\xff", b"/v1/x#fragment", b"/v1/a\tb", b"/v1/\x7f"])
async def test_a_target_that_is_no_URL_is_refused(target: bytes, origin: Origin, through: Proxy) -> None:
    wire = await connect(through.port)
    await wire.write(Shape(b"GET", target, (b"Host: p",), b"").raw)
    (answer,) = await read_answer(wire)
    assert (answer.first[9:11], origin.requests) == (b"40", [])


@pytest.mark.parametrize("method", [b"BREW", b"get", b"G\xc3\x89T"])
async def test_a_method_that_is_not_registered_is_refused(method: bytes, origin: Origin, through: Proxy) -> None:
    wire = await connect(through.port)
    await wire.write(Shape(method, b"/v1/x", (b"Host: p",), b"").raw)
    (answer,) = await read_answer(wire)
    assert (answer.first[9:11], origin.requests) == (b"40", [])


async def test_trailers_of_a_request_are_left_behind(origin: Origin, through: Proxy) -> None:
    shape = Shape(b"POST", b"/v1/x", (b"Host: p", b"Trailer: X-Sum"), b"{}", 1, trailers=b"X-Sum: 1\r\nx-sum: 2\r\n")
    for writes in ([shape.raw], split_at(shape.raw, range(len(shape.raw)))):
        origin.requests.clear()
        wire = await connect(through.port)
        await wire.write(*writes)
        assert (await read_answer(wire))[-1].body == b"ok"
        wire.close()
        sent = at_upstream(request_of(shape.raw, b"{}"), b"127.0.0.1:%d" % origin.port)
        assert [as_seen(received) for received in origin.requests] == [sent]


@pytest.mark.parametrize("keep", [b"X: 1", b"Connection: keep-alive"])
@pytest.mark.parametrize("host", [(b"Host: p",), ()], ids=["host", "no host"])
async def test_an_http_1_0_request_is_sent_on_as_1_1_and_answered_without_chunks(
    host: tuple[bytes, ...], keep: bytes, origin: Origin, through: Proxy
) -> None:
    origin.answer = lambda request: Answer(
        [b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nok\r\n0\r\n\r\n"]
    )
    shape = Shape(b"POST", b"/v1/x", (*host, keep), b"{}", version=b"HTTP/1.0")
    wire = await connect(through.port)
    await wire.write(shape.raw)
    (answer,) = await read_answer(wire)
    assert (answer.whole, answer.body, wire.end) == (True, b"ok", "fin")
    assert answer.values(b"transfer-encoding") == []
    sent = at_upstream(request_of(shape.raw, shape.payload), b"127.0.0.1:%d" % origin.port)
    assert [as_seen(received) for received in origin.requests] == [sent]
    wire.close()


@pytest.mark.parametrize("body", ["later", "at once", "refused"])
async def test_expect_is_answered_by_the_proxy_and_not_sent_on(body: str, origin: Origin, through: Proxy) -> None:
    """A client that waits is told to go on; one that does not is served all the same; a refusal is the proxy's own."""
    lines = (
        (b"Host: p", b"Expect: 100-continue") if body != "refused" else (b"Host: p", b"Expect: 100-continue", b"Transfer-Encoding: gzip")
    )
    shape = Shape(b"POST", b"/v1/x", lines, b"{}")
    wire = await connect(through.port)
    head, payload = split_at(shape.raw, [len(shape.raw) - 2])
    if body == "at once":
        await wire.write(shape.raw)
    else:
        await wire.write(head)
    if body == "later":
        assert await wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await wire.write(payload)
    answers = await read_answer(wire)
    wire.close()
    if body == "refused":
        assert (answers[-1].first[9:12], origin.requests) == (b"400", [])
    else:
        assert answers[-1].body == b"ok"
        assert [as_seen(received) for received in origin.requests] == [
            at_upstream(request_of(shape.raw, b"{}"), b"127.0.0.1:%d" % origin.port)
        ]


@pytest.mark.parametrize("lines", [[b"Expect:x=1, \t100-Continue"], [b"eXpect:x=1", b"expect: 100-CONTINUE "], [b"Expect:x=1"]])
async def test_other_expectations_are_the_upstreams_to_meet(lines: list[bytes], origin: Origin, through: Proxy) -> None:
    origin.answer = lambda request: Answer([b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"])
    shape = Shape(b"POST", b"/v1/x", (b"Host: p", *lines), b"{}")
    wire = await connect(through.port)
    await wire.write(shape.raw[:-2])
    if lines != [b"Expect:x=1"]:
        assert await wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    while not origin.wires:  # nothing is sent before there is a connection
        await asyncio.sleep(0.005)
    await wire.write(b"{}")
    assert [answer.first[9:12] for answer in await read_answer(wire)] == [b"417"]
    sent = at_upstream(request_of(shape.raw, b"{}"), b"127.0.0.1:%d" % origin.port)
    assert [as_seen(received) for received in origin.requests] == [sent]
    assert sent.values(b"expect") == [lines[0].partition(b":")[2]]


async def test_an_http_1_0_client_is_not_told_to_go_on(origin: Origin, through: Proxy) -> None:
    shape = Shape(b"POST", b"/v1/x", (b"Host: p", b"Expect: 100-continue"), b"{}", version=b"HTTP/1.0")
    wire = await connect(through.port)
    await wire.write(shape.raw[:-2])
    while not origin.wires:
        await asyncio.sleep(0.005)
    await wire.write(b"{}")
    (answer,) = await read_answer(wire)
    assert answer.body == b"ok"
    assert [as_seen(received) for received in origin.requests] == [at_upstream(request_of(shape.raw, b"{}"), b"127.0.0.1:%d" % origin.port)]


async def test_a_named_upstream_gets_the_rest_of_the_path_as_it_was_spelt(start_proxy, origin: Origin) -> None:
    proxy = await start_proxy(upstream={"mine": f"http://127.0.0.1:{origin.port}/base"})
    wire = await connect(proxy.port)
    for target, rest in {
        b"/mine/v1/a%2Fb?x=/mine/": b"/v1/a%2Fb?x=/mine/",
        b"/mine//x/": b"//x/",
        b"/mine": b"/",
        b"/mine?q": b"/?q",
    }.items():
        await wire.write(joined(b"GET " + target + b" HTTP/1.1", b"Host: p"))
        await read_answer(wire)
        assert origin.requests[-1].first == b"GET /base" + rest + b" HTTP/1.1"
    wire.close()
