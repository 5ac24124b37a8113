"""No key of a caller or provider stands in anything we write: spool, topic, lake, logs, metrics, terminal."""

import asyncio
import gzip
import json
import urllib.parse
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from clearpane.contract import members
from tests.e2e.conftest import SWITCH
from tests.e2e.system import Process, clearpane, free_port, settled

MARK = "CaNaRy0123456789AbCdEf"
# One of each form that a provider gives out; every one of them holds MARK, so one search finds any that leaks.
KEYS = {
    "openai": f"sk-{MARK}T3BlbkFJabcdefghij0123",
    "openai project": f"sk-proj-{MARK}-abcdefghij0123456789",
    "anthropic": f"sk-ant-api03-{MARK}-abcdefghij0123456789AA",
    "openrouter": f"sk-or-v1-{MARK}abcdefghij0123456789",
    "gemini": f"AIza{MARK}abcdefghijk12",
    "groq": f"gsk_{MARK}abcdefghij0123456789ab",
    "xai": f"xai-{MARK}abcdefghij0123456789",
    "huggingface": f"hf_{MARK}abcdefghij01",
}
UNKNOWN_FORM = f"azure{MARK}ofNoKnownForm"  # only recognised because the caller shows it as a key


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream that quotes all it was sent, keys included, as careless error messages do."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"Upgrade: websocket" in head:
                quote = b"\x82\x7e" + len(head).to_bytes(2, "big") + head
                writer.write(SWITCH + quote + b"\x81" + quote[1:] + b"\x88\x00")
                await writer.drain()
                break
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            if b"/malformed" in head:
                writer.write(b"HTTP/1.1 200 OK\r\nno colon here " + head.replace(b"\r\n", b" ") + b"\r\n\r\n")
                continue
            text = json.dumps({"error": {"message": f"Incorrect API key provided: {head.decode()} {body.decode()}"}}).encode()
            packed = gzip.compress(text) if b"/gzip" in head else text
            coding = b"Content-Encoding: gzip\r\n" if b"/gzip" in head else b""
            writer.write(
                b"HTTP/1.1 401 Unauthorized\r\nSet-Cookie: s=%b\r\n%bContent-Length: %d\r\n\r\n%b"
                % (MARK.encode(), coding, len(packed), packed)
            )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()


def requests() -> list[bytes]:
    made = []
    for number, key in enumerate([*KEYS.values(), UNKNOWN_FORM]):
        for path in ("/v1/chat/completions", "/v1/gzip", "/v1/malformed", "/nowhere/x"):
            query = f"?key={urllib.parse.quote(key)}&api_key={key}&x=1"
            body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": f"my key is {key}, keep it"}]}).encode()
            made.append(
                f"POST {path}{query} HTTP/1.1\r\nHost: p\r\nConnection: close\r\nAuthorization: Bearer {key}\r\nx-api-key: {key}\r\n"
                f"api-key: {key}\r\nx-goog-api-key: {key}\r\nHelicone-Auth: Bearer {key}\r\nCookie: session={key}\r\n"
                f"Proxy-Authorization: Basic {key}\r\nClearpane-Request-Id: call-{number}-{path}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
        made.append(
            f"GET /v1/realtime?api-key={key} HTTP/1.1\r\nHost: p\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{key}\r\n\r\n".encode()
        )
    made.append(b"POST /v1/x HTTP/1.1\r\nHost: p\r\nBroken header %b\r\n\r\n" % KEYS["openai"].encode())
    return made


async def send(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(-1), 10)
    writer.close()
    return answer


def leaks(folder: Path) -> list[str]:
    """Files below `folder` that hold the mark, as they are or unpacked."""
    found = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        plain = gzip.decompress(data) if path.name.endswith(".gz") else b""
        if MARK.encode() in data or MARK.encode() in plain:
            found.append(str(path))
    return found


@pytest.mark.timeout(120)
async def test_no_key_in_the_spool(tmp_path: Path) -> None:
    """With --spool-only the spool keeps everything, so all of it can be searched."""
    upstream = await asyncio.start_server(echo, "127.0.0.1", 0)
    port, admin = free_port(), free_port()
    proxy = Process(
        tmp_path, "proxy", "clearpane.cli", "proxy", "--spool-only", "--data", str(tmp_path / "data"), "--listen", f"127.0.0.1:{port}",
        "--admin", f"127.0.0.1:{admin}", "--default-upstream", f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}",
    )  # fmt: skip
    try:
        await proxy.ready()
        answers = [await send(port, request) for request in requests()]
        assert any(MARK.encode() in answer for answer in answers), "the upstream's quote must reach the caller untouched"
        metrics = b""
        async with asyncio.timeout(10):  # the worker tells its counts once a second
            while b"clearpane_proxy_calls_total" not in metrics:
                metrics = await send(admin, b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert MARK.encode() not in metrics
    finally:
        proxy.stop()
        upstream.close()
    segments = [path for path in (tmp_path / "data").rglob("*.seg") if path.stat().st_size > 10_000]
    assert segments
    # A compressed answer stands in the spool as it came; it is unpacked and searched before it leaves the machine.
    assert leaks(tmp_path) == []


@pytest.mark.timeout(180)
@pytest.mark.kafka
async def test_no_key_on_the_topic_in_the_lake_or_in_a_log(tmp_path: Path, kafka_bootstrap: str, kafka_topic: str) -> None:
    upstream = await asyncio.start_server(echo, "127.0.0.1", 0)
    port, lake, admin = free_port(), tmp_path / "lake", free_port()
    up = Process(
        tmp_path, "up", "clearpane.cli", "up", "--data", str(tmp_path / "data"), "--listen", f"127.0.0.1:{port}", "--lake", str(lake),
        "--admin", f"127.0.0.1:{admin}", "--default-upstream", f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}",
        "--kafka", kafka_bootstrap, "--topic", kafka_topic, "--flush-seconds", "0.3",
    )  # fmt: skip
    try:
        await up.ready()
        made = requests()
        for request in made:
            await send(port, request)
        found = await settled(str(lake), len(made) - 1, 60)
        assert len(found) == len(made) - 1  # the last is no HTTP: there is no call
        assert MARK not in json.dumps(found)
        shown = await clearpane("show", "--lake", str(lake), found[0]["request_id"])
        assert MARK.encode() not in shown
        metrics = await send(admin, b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert MARK.encode() not in metrics
        topic = await everything(kafka_bootstrap, kafka_topic)
    finally:
        up.stop()
        upstream.close()
    assert len(topic) > len(made)
    assert [message for message in topic if MARK.encode() in message] == []
    assert leaks(tmp_path) == []
    objects = list(lake.glob("calls/**/*.jsonl.gz"))
    assert objects
    assert all(members.unseal(path.read_bytes())[0].count for path in objects)


async def everything(bootstrap: str, topic: str) -> list[bytes]:
    """Every byte on the topic: keys, values, headers."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        found: list[bytes] = []
        while batches := await consumer.getmany(timeout_ms=2000):
            for message in (message for batch in batches.values() for message in batch):
                found += [message.key or b"", message.value or b"", repr(message.headers).encode()]
        return found
    finally:
        await consumer.stop()
