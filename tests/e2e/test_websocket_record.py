"""What is recorded of a WebSocket, and real clients that talk over one."""

import asyncio
import base64
import hashlib
import json
import os
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import orjson
import pytest
from aiohttp import web

from consumer.derive import derive, prepare
from proxy.shipper import envelopes
from proxy.spool.frames import completed_payload
from tests.e2e.conftest import SWITCH, WAIT_S, WEBSOCKET_KEY, Open, Proxy

SCHEMA = Path(__file__).parents[2] / "clearpane/contract/envelope.v1.schema.json"
StartProxy = Callable[..., Awaitable[Proxy]]

HELLO = b"\x81\x05hello"
CLOSE = b"\x88\x05\x03\xe8bye"


def masked(frame: bytes, mask: bytes = b"\1\2\3\4") -> bytes:
    """Of a frame with a short payload."""
    return bytes([frame[0], frame[1] | 0x80]) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(frame[2:]))


def lines_of(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines()]


async def read_exactly(reader: asyncio.StreamReader, size: int) -> bytes:
    return await asyncio.wait_for(reader.readexactly(size), WAIT_S)


async def test_a_record_holds_the_messages_of_both_sides(open_raw: Open) -> None:
    packer = zlib.compressobj(wbits=-15)
    packed = (packer.compress(b'{"type":"session.created"}') + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    asked = [b'\x01\x03{"a', b"\x89\x00", b'\x00\x03":1', b"\x80\x01}", b"\x82\x02\x00\xff", CLOSE]
    said = [bytes([0xC1, len(packed)]) + packed, b"\x81" + bytes([len(WEBSOCKET_KEY)]) + WEBSOCKET_KEY, b"\x88\x02\x03\xe9"]
    raw = await open_raw(SWITCH.replace(b"X-Odd: 1", b"Sec-WebSocket-Extensions: permessage-deflate"))
    for frame in asked:
        raw.client[1].write(masked(frame))
        await read_exactly(raw.server[0], len(frame) + 4)
    for frame in said:
        raw.server[1].write(frame)
        assert await read_exactly(raw.client[0], len(frame)) == frame
    raw.server[1].write_eof()
    raw.client[1].write_eof()
    facts, request, response = await raw.proxy.record()
    times = [line["at_ms"] for line in lines_of(request) + lines_of(response)]
    assert times == sorted(times)
    assert 0 < times[0] <= times[-1] <= facts["timing"]["duration_ms"]
    assert [{**line, "at_ms": 0} for line in lines_of(request)] == [
        {"at_ms": 0, "type": "text", "data": '{"a":1}'},
        {"at_ms": 0, "type": "binary", "data": base64.b64encode(b"\0\xff").decode()},
        {"at_ms": 0, "type": "close", "code": 1000, "data": "bye"},
    ]
    assert [{**line, "at_ms": 0} for line in lines_of(response)] == [
        {"at_ms": 0, "type": "text", "data": '{"type":"session.created"}'},
        {"at_ms": 0, "type": "text", "data": "[redacted]"},
        {"at_ms": 0, "type": "close", "code": 1001, "data": ""},
    ]
    for side, wire in (("request", b"".join(map(masked, asked))), ("response", b"".join(said))):
        assert (facts[side]["body_bytes"], facts[side]["body_sha256"]) == (len(wire), hashlib.sha256(wire).hexdigest())
        assert not facts[side]["truncated"]
    assert facts["target"]["operation"] == "realtime"
    assert (facts["response"]["status"], facts["response"]["streamed"], facts["response"]["end"]) == (101, True, "complete")
    assert facts["caller"]["key_fingerprint"] is not None
    assert raw.proxy.spool.starts[0]["response"]["streamed"] is True
    message = envelopes.completed(b"".join(completed_payload(orjson.dumps(facts), request, response)), "0" * 32, 0, 1)
    envelope = json.loads(message.data)
    jsonschema.validate(envelope, json.loads(SCHEMA.read_text()), format_checker=jsonschema.FormatChecker())
    assert (envelope["request"]["body"], envelope["response"]["body"]) == (request.decode(), response.decode())


async def test_the_callers_key_is_in_no_part_of_a_record(open_raw: Open) -> None:
    raw = await open_raw(SWITCH.replace(b"X-Odd: 1", b"Sec-WebSocket-Protocol: openai-insecure-api-key." + WEBSOCKET_KEY))
    raw.client[1].write(masked(b"\x81" + bytes([len(WEBSOCKET_KEY)]) + WEBSOCKET_KEY))
    await read_exactly(raw.server[0], len(WEBSOCKET_KEY) + 6)
    raw.close()
    spool = raw.proxy.spool
    record = await raw.proxy.record()
    assert WEBSOCKET_KEY not in repr([record, spool.admitted, spool.starts]).encode()
    assert record[0]["policy"]["redactions"] == 1


async def test_a_record_says_where_it_is_not_all(open_raw: Open) -> None:
    raw = await open_raw(capture_bytes_max=20)
    for _ in range(5):
        raw.server[1].write(HELLO)
        await read_exactly(raw.client[0], len(HELLO))
    raw.client[1].write(b"\xf3\x01\x00 no frame")
    await read_exactly(raw.server[0], 12)
    raw.close()
    facts, request, response = await raw.proxy.record()
    assert [line["data"] for line in lines_of(response)] == ["hello", "hello"]
    assert (facts["response"]["truncated"], facts["response"]["body_bytes"]) == (True, 35)
    assert [line["type"] for line in lines_of(request)] == ["unreadable"]
    assert facts["request"]["body_bytes"] == 12


@pytest.mark.parametrize("omitted", [[], ["request", "response"]])
@pytest.mark.parametrize("first", [b"\x81", b"\x82"])
async def test_what_a_session_used_is_read_from_its_record_omitted_or_not(first: bytes, omitted: list[str], open_raw: Open) -> None:
    """Text as OpenAI sends it, or JSON in binary messages as Gemini does."""
    openai = {"type": "response.done", "response": {"status": "completed", "usage": {"input_tokens": 30, "output_tokens": 40}}}
    gemini = {"serverContent": {"turnComplete": True}, "usageMetadata": {"promptTokenCount": 30, "responseTokenCount": 40}}
    message = json.dumps(openai if first == b"\x81" else gemini).encode()
    raw = await open_raw()
    wire = (first + b"\x7e" + len(message).to_bytes(2, "big") + message) * 2 + CLOSE
    raw.server[1].write(wire)
    await read_exactly(raw.client[0], len(wire))
    raw.server[1].write_eof()
    raw.client[1].write_eof()
    facts, request, response = await raw.proxy.record()
    facts["policy"]["omitted"] = omitted
    sealed = envelopes.completed(b"".join(completed_payload(orjson.dumps(facts), request, response)), "0" * 32, 0, 1)
    derived = derive(json.loads(sealed.data), prepare())
    usage = derived["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["source"]) == (60, 80, "provider")
    assert (derived["model"], derived["parse_error"]) == ("gpt-realtime", None)


# Real clients and servers


async def serve(request: web.Request) -> web.WebSocketResponse:
    """Sends everything back; `bye` ends it."""
    socket = web.WebSocketResponse(protocols=["realtime"], max_msg_size=0)
    await socket.prepare(request)
    async for message in socket:
        if message.type is aiohttp.WSMsgType.TEXT:
            await (socket.close(code=4001, message=b"as asked") if message.data == "bye" else socket.send_str(message.data))
        else:
            await socket.send_bytes(message.data)
    return socket


@pytest.fixture
async def real(start_proxy: StartProxy) -> AsyncIterator[Proxy]:
    app = web.Application()
    app.router.add_get("/v1/realtime", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield await start_proxy(default_upstream=f"http://127.0.0.1:{runner.addresses[0][1]}")
    await runner.cleanup()


@pytest.mark.parametrize("compress", [0, 15, 9])
async def test_a_real_client_and_a_real_server_talk_as_if_nobody_was_between(compress: int, real: Proxy) -> None:
    texts = ["", "héllo", "x" * 70_000, json.dumps({"audio": "a" * 1_000_000})]
    binaries = [b"", os.urandom(125), os.urandom(1 << 20)]
    async with aiohttp.ClientSession() as session, session.ws_connect(
        f"http://127.0.0.1:{real.port}/v1/realtime",
        compress=compress, max_msg_size=0, protocols=["realtime"], headers={"Authorization": f"Bearer {WEBSOCKET_KEY.decode()}"},
    ) as socket:  # fmt: skip
        assert (socket.protocol, bool(socket.compress)) == ("realtime", bool(compress))
        await socket.ping(b"are you there")
        for text in texts:
            await socket.send_str(text)
            assert await socket.receive_str(timeout=WAIT_S) == text
        for data in binaries:
            await socket.send_bytes(data)
            assert await socket.receive_bytes(timeout=WAIT_S) == data
        await socket.send_str("bye")
        message = await socket.receive(timeout=WAIT_S)
        assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 4001, "as asked")
    facts, request, response = await real.record()
    kinds = ["text"] * len(texts) + ["binary"] * len(binaries)
    sent = texts + [base64.b64encode(data).decode() for data in binaries]
    assert [(line["type"], line["data"]) for line in lines_of(response)] == [*zip(kinds, sent, strict=True), ("close", "as asked")]
    asked = [(line["type"], line["data"]) for line in lines_of(request)]
    assert asked[: len(sent) + 1] == [*zip(kinds, sent, strict=True), ("text", "bye")]
    assert facts["response"]["end"] == "complete"


async def test_many_talk_at_once(real: Proxy) -> None:
    async def talk(session: aiohttp.ClientSession, number: int) -> None:
        async with session.ws_connect(f"http://127.0.0.1:{real.port}/v1/realtime", compress=15) as socket:
            for turn in range(20):
                await socket.send_str(f"{number}.{turn}")
                assert await socket.receive_str(timeout=WAIT_S) == f"{number}.{turn}"

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(talk(session, number) for number in range(30)))
    await real.record(29)
    assert {facts["response"]["end"] for facts, _, _ in real.spool.records} == {"complete"}
