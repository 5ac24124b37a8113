"""Promise 3, true money, beside promise 1: a stream is asked for its usage, and it is taken out again, only where that is wanted."""

import asyncio
import gzip
import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openai import AsyncOpenAI

from proxy.stream_options import BODY_BYTES_MAX
from proxy.upstream.parser import Parser, Piece
from tests.e2e.conftest import WAIT_S, Proxy, Upstream

SCHEMA = json.loads((Path(__file__).parents[2] / "clearpane/contract/envelope.v1.schema.json").read_text(encoding="utf-8"))
HEADER = b"Clearpane-Include-Usage: true\r\n"
BODY = b'{"model": "gpt-4o", "stream": true, "messages": [{"role": "user", "content": "Hi"}]}'
ASKED = b'{"stream_options":{"include_usage":true},' + BODY[1:]
USAGE = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}


def event(**more: Any) -> bytes:
    return (
        b"data: " + json.dumps({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", **more}).encode() + b"\n\n"
    )


def said(text: str | None, finish: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}], usage=None)


TEXT = said("Hel") + said("lo") + said(None, "stop")
STATED = event(choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"
STREAM = TEXT + STATED + DONE
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nX-Odd: 1\r\n"


def post(body: bytes, *lines: bytes, close: bool = True) -> bytes:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nContent-Type: application/json\r\n" + b"".join(lines)
    return head + (b"Connection: close\r\n" if close else b"") + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"


def answer(framing: str, *pieces: bytes, more: bytes = b"") -> bytes:
    if framing == "chunked":
        return HEAD + more + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*pieces)
    whole = b"".join(pieces)
    return HEAD + more + (b"content-length: %d\r\n\r\n" % len(whole) if framing == "length" else b"\r\n") + whole


def read(data: bytes) -> tuple[bytes, bytes]:
    """(head, body) of a whole answer, by a parser that takes nothing that is not framed as it should be."""
    parser = Parser("POST", head_bytes_max=1 << 16, headers_max=100)
    events = parser.feed(data)
    parser.eof()
    assert not parser.excess
    return data.partition(b"\r\n\r\n")[0], b"".join(part for each in events if isinstance(each, Piece) for part in each.payload)


def body_of(request: bytearray) -> bytes:
    return bytes(request).partition(b"\r\n\r\n")[2]


async def admitted(proxy: Proxy) -> None:
    """Returns when the proxy waits no longer for a request to be all there."""
    async with asyncio.timeout(WAIT_S):
        while not proxy.server._relays:
            await asyncio.sleep(0.001)


def policy(facts: dict[str, Any]) -> Any:
    jsonschema.validate(facts["policy"], SCHEMA["properties"]["policy"])
    return facts["policy"].get("include_usage")


def asked_for(withheld: bytes = STATED, reason: str | None = None) -> dict[str, Any]:
    return {"requested": True, "withheld_bytes": len(withheld), "reason": reason}


def left_alone(reason: str) -> dict[str, Any]:
    return {"requested": False, "withheld_bytes": 0, "reason": reason}


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("by", ["header", "setting"])
async def test_the_upstream_is_asked_and_the_client_does_not_see_the_answer(
    framing: str, by: str, start_proxy: Callable[..., Awaitable[Proxy]], upstream: Upstream
) -> None:
    proxy = await start_proxy(**({"include_usage": ("default",)} if by == "setting" else {}))
    upstream.answers(answer(framing, STREAM))
    got = await proxy.call(post(BODY, *([HEADER] if by == "header" else [])))
    head, body = read(got)
    assert body == TEXT + DONE
    assert b"X-Odd: 1" in head
    assert (b"content-length" in head.lower()) is False
    assert body_of(upstream.received[0]) == ASKED
    assert b"clearpane" not in bytes(upstream.received[0]).lower()
    facts, request, response = await proxy.record()
    assert (request, response) == (BODY, STREAM)
    assert facts["response"]["end"] == "complete"
    assert facts["response"]["body_bytes"] == len(STREAM)
    assert policy(facts) == asked_for()


@pytest.mark.parametrize("seed", range(5))
async def test_any_split_of_the_answer_shows_the_client_the_same(seed: int, proxy: Proxy, upstream: Upstream) -> None:
    chosen = random.Random(seed)
    cuts = sorted(chosen.randrange(len(STREAM)) for _ in range(9))
    wire = answer("chunked", *(STREAM[at:to] for at, to in zip([0, *cuts], [*cuts, len(STREAM)], strict=True)))
    ends = sorted(chosen.randrange(len(wire)) for _ in range(9))
    upstream.answers(*(wire[at:to] for at, to in zip([0, *ends], [*ends, len(wire)], strict=True)), pause_s=0.002)
    _, body = read(await proxy.call(post(BODY, HEADER)))
    assert body == TEXT + DONE
    _, _, response = await proxy.record()
    assert response == STREAM


@pytest.mark.parametrize("way", ["in two", "byte by byte", "late", "chunked", "expect"])
async def test_a_request_is_sent_when_it_is_all_there(way: str, proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(answer("chunked", STREAM))
    reader, writer = await proxy.connect()
    head, _, body = post(BODY, HEADER, *([b"Expect: 100-continue\r\n"] if way == "expect" else [])).partition(b"\r\n\r\n")
    if way == "chunked":
        head, body = head[: head.index(b"\r\nContent-Length")] + b"\r\nTransfer-Encoding: chunked", chunked(BODY[:9], BODY[9:])
    writer.write(head + b"\r\n\r\n")
    if way == "expect":
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    if way == "late":
        await admitted(proxy)
    step = {"in two": 20, "byte by byte": 1}.get(way, len(body))
    for at in range(0, len(body), step):
        writer.write(body[at : at + step])
        await writer.drain()
        await asyncio.sleep(0)
    async with asyncio.timeout(WAIT_S):
        got = await reader.read(-1)
    writer.close()
    assert read(got)[1] == TEXT + DONE
    sent = bytes(upstream.received[0])
    assert sent.endswith(chunked(ASKED) if way == "chunked" else b"Content-Length: %d\r\n\r\n%b" % (len(ASKED), ASKED))
    facts, request, _ = await proxy.record()
    assert request == BODY
    assert policy(facts) == asked_for()


PACKED = gzip.compress(BODY)
LARGE = BODY[:-1] + b', "user": "' + b"x" * BODY_BYTES_MAX + b'"}'


@pytest.mark.parametrize(
    ("body", "lines", "expected"),
    [
        (PACKED, b"Content-Encoding: gzip\r\n", "encoded_request"),
        (LARGE, b"", "request_too_large"),
        (BODY[:-1], b"", "unreadable_request"),
        (BODY.replace(b"true", b"false"), b"", None),
        (BODY[:-1] + b', "stream_options": {"include_usage": true}}', b"", None),
        (BODY[:-1] + b', "stream_options": {"include_usage": false}}', b"", None),
        (b"", b"", None),
    ],
    ids=["encoded", "large", "unreadable", "not streamed", "wanted", "not wanted", "empty"],
)
@pytest.mark.parametrize("framed", ["length", "chunked"])
async def test_other_requests_and_their_answers_are_left_alone(
    body: bytes, lines: bytes, expected: str | None, framed: str, proxy: Proxy, upstream: Upstream
) -> None:
    upstream.answers(answer("chunked", STREAM))
    request = post(body, HEADER, lines)
    if framed == "chunked":
        head = request[: request.index(b"Content-Length")]
        request = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body[:100], body[100:])
    assert read(await proxy.call(request))[1] == STREAM
    parser_sees = body_of(upstream.received[0])
    assert (b"".join(_payload(parser_sees)) if framed == "chunked" else parser_sees) == body
    facts, kept, _ = await proxy.record()
    assert kept == body
    assert policy(facts) == (left_alone(expected) if expected else None)


def _payload(data: bytes) -> list[bytes]:
    return [read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data)[1]]


@pytest.mark.parametrize(("body", "lines"), [(PACKED, b"Content-Encoding: gzip\r\n"), (LARGE, b"")], ids=["encoded", "large"])
async def test_a_call_that_did_not_stream_was_not_to_be_asked(body: bytes, lines: bytes, proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
    await proxy.call(post(body, HEADER, lines))
    assert policy((await proxy.record())[0]) is None


async def test_an_upstream_that_was_not_reached_was_not_asked(start_proxy: Callable[..., Awaitable[Proxy]], upstream: Upstream) -> None:
    proxy = await start_proxy(default_upstream="http://127.0.0.1:1")
    assert (await proxy.call(post(BODY, HEADER))).startswith(b"HTTP/1.1 502 ")
    assert policy((await proxy.record())[0]) is None


async def test_an_encoded_request_is_sent_on_as_it_comes(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(answer("chunked", STREAM))
    _, writer = await proxy.connect()
    request = post(PACKED, HEADER, b"Content-Encoding: gzip\r\n")
    writer.write(request[:-10])
    async with asyncio.timeout(WAIT_S):
        while not (upstream.received and bytes(upstream.received[0]).endswith(b"\r\n\r\n")):
            await asyncio.sleep(0.005)
    writer.write(request[-10:])
    facts, kept, _ = await proxy.record()
    assert (kept, policy(facts)) == (PACKED, left_alone("encoded_request"))
    writer.close()


@pytest.mark.parametrize("option", [b"", HEADER], ids=["as it comes", "gathered"])
async def test_a_spoilt_body_ends_the_same_whether_it_is_gathered_or_not(option: bytes, proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(b"", keep=True)
    head = post(b"", option).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    reader, writer = await proxy.connect()
    writer.write(head + b"2\r\n{}\r\n")
    await admitted(proxy)
    writer.write(b"no number\r\n")
    assert (await asyncio.wait_for(reader.read(-1), WAIT_S)).startswith(b"HTTP/1.1 400 ")
    response = (await proxy.record())[0]["response"]
    assert (response["end"], response["error"]["type"]) == ("client_error", "request_malformed")
    writer.close()


async def test_without_the_option_nothing_is_asked(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(answer("chunked", STREAM))
    assert (await proxy.call(post(BODY))).endswith(chunked(STREAM))
    assert body_of(upstream.received[0]) == BODY
    assert policy((await proxy.record())[0]) is None


@pytest.mark.parametrize("path", [b"/v1/responses", b"/v1/embeddings", b"/anthropic/v1/messages"])
async def test_other_operations_are_not_asked(path: bytes, start_proxy: Callable[..., Awaitable[Proxy]], upstream: Upstream) -> None:
    proxy = await start_proxy(upstream={"anthropic": f"http://127.0.0.1:{upstream.port}"})
    upstream.answers(answer("chunked", STREAM))
    assert (await proxy.call(post(BODY, HEADER).replace(b"/v1/chat/completions", path))).endswith(chunked(STREAM))
    assert body_of(upstream.received[0]) == BODY


async def test_a_compressed_answer_is_passed_on_as_it_is(proxy: Proxy, upstream: Upstream) -> None:
    packed = gzip.compress(STREAM)
    upstream.answers(answer("chunked", packed, more=b"Content-Encoding: gzip\r\n"))
    got = await proxy.call(post(BODY, HEADER))
    assert got.endswith(chunked(packed))
    assert policy((await proxy.record())[0]) == asked_for(b"", "encoded_answer")


async def test_an_answer_that_is_no_stream_is_passed_on_as_it_is(proxy: Proxy, upstream: Upstream) -> None:
    refusal = b'{"error":{"message":"no","choices":[],"usage":{}}}'
    upstream.answers(
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(refusal), refusal)
    )
    got = await proxy.call(post(BODY, HEADER))
    assert got.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nContent-Length: %d\r\n" % len(refusal) in got
    assert got.endswith(b"\r\n\r\n" + refusal)
    assert policy((await proxy.record())[0]) == asked_for(b"")


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_nothing_follows_an_answer_that_has_no_body(status: bytes, proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(HEAD.replace(b"200 OK", status) + b"\r\n")
    got = await proxy.call(post(BODY, HEADER))
    assert got.startswith(b"HTTP/1.1 " + status)
    assert got.endswith(b"\r\n\r\n")
    assert got.count(b"\r\n\r\n") == 1
    assert b"transfer-encoding" not in got.lower()
    assert policy((await proxy.record())[0]) == asked_for(b"")


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("at", [1, len(TEXT) - 30, len(TEXT), len(TEXT) + 40, len(STREAM) - 1])
async def test_a_break_shows_the_client_all_that_came_but_the_usage(framing: str, at: int, proxy: Proxy, upstream: Upstream) -> None:
    wire = answer(framing, STREAM)
    begins = wire.index(b"\r\n\r\n") + 4 + (len(b"%x\r\n" % len(STREAM)) if framing == "chunked" else 0)
    upstream.answers(wire[: begins + at])
    got = await proxy.call(post(BODY, HEADER))
    parser = Parser("POST", head_bytes_max=1 << 16, headers_max=100)
    events = parser.feed(got)
    assert not parser.complete
    body = b"".join(part for each in events if isinstance(each, Piece) for part in each.payload)
    seen = STREAM[:at]
    assert body == seen.replace(STATED, b"")
    facts, _, response = await proxy.record()
    assert response == seen
    assert facts["response"]["end"] == "upstream_error"


async def test_a_client_that_leaves_in_the_middle_is_recorded_with_what_had_come(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(TEXT)[:-5], keep=True)
    reader, writer = await proxy.connect()
    writer.write(post(BODY, HEADER))
    await reader.readuntil(said(None, "stop"))
    writer.transport.abort()
    facts, _, response = await proxy.record()
    assert (facts["response"]["end"], response) == ("client_disconnected", TEXT)
    assert policy(facts) == asked_for(b"")


async def test_a_client_that_leaves_before_its_request_is_all_there(proxy: Proxy, upstream: Upstream) -> None:
    _, writer = await proxy.connect()
    writer.write(post(BODY, HEADER)[:-10])
    await admitted(proxy)
    writer.transport.abort()
    facts, _, _ = await proxy.record()
    assert facts["response"]["end"] == "client_disconnected"
    assert upstream.connections == 0


async def test_calls_on_one_connection_one_behind_the_other(proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(answer("chunked", STREAM), keep=True)
    reader, writer = await proxy.connect()
    requests = [post(BODY, HEADER, close=False), post(BODY, close=False), post(BODY, HEADER, close=False)]
    writer.write(b"".join(requests))
    for expected in (chunked(TEXT + DONE), chunked(STREAM), chunked(TEXT + DONE)):
        async with asyncio.timeout(WAIT_S):
            await reader.readuntil(b"\r\n\r\n")
            got = await reader.readuntil(b"0\r\n\r\n")
        assert _payload(got) == _payload(expected)
    writer.close()
    assert [body_of(each) for each in upstream.received[:3]] == [ASKED, BODY, ASKED]


@pytest.mark.parametrize("wanted", [False, True])
async def test_the_sdk_sees_what_its_caller_asked_for(wanted: bool, proxy: Proxy, upstream: Upstream) -> None:
    upstream.answers(answer("chunked", TEXT, STATED, DONE))
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if wanted else {}
    async with AsyncOpenAI(
        base_url=f"http://127.0.0.1:{proxy.port}/v1", api_key="sk-test", max_retries=0, default_headers={"Clearpane-Include-Usage": "true"}
    ) as client:
        messages: Any = [{"role": "user", "content": "Hi"}]
        stream = await client.chat.completions.create(model="gpt-4o", messages=messages, stream=True, **options)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello"
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == ([10] if wanted else [])
    assert all(chunk.choices for chunk in chunks) is not wanted
    facts, _, response = await proxy.record()
    assert response == STREAM
    assert policy(facts) == (None if wanted else asked_for())
