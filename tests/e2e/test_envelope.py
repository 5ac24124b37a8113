"""The published envelope: what a worker and the shipper really make equals the goldens, and the goldens never change."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from proxy.shipper import envelopes
from proxy.spool.frames import completed_payload
from tests.e2e.conftest import Proxy, Upstream

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "tests/contract/v1"
SCHEMA = json.loads((ROOT / "clearpane/contract/envelope.v1.schema.json").read_text())
SOURCE = "01a1fdba0000700080000000000000aa"

# `call.v1` is published: a golden is never edited. What an old reader would misread is a new version in a new folder.
DIGESTS = {
    "completed.json": "4c70b326fc26b85a9816b918761d4f19efb9139e96ff272d653fa568c734b947",
    "interrupted.json": "a1e0e0f197cdec06ccfe87079b4edff291f75a18915a1d6a89db73e20ea38cc8",
    "started.json": "fa074c799ebb18868aba153bf0f9498dda1a3127d7a057287e328bae09672a95",
    "stream.json": "41a96291cec8df3bc748a704522f686904553ad571a55f12fbf2cf761707b870",
}

CHAT = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'
ANSWER = b'{"id":"chatcmpl-1","model":"gpt-4o-mini","usage":{"prompt_tokens":1,"completion_tokens":2}}'
REQUEST = (
    b"POST /openai/v1/chat/completions?key=sk-secret-0123456789abcdef HTTP/1.1\r\nHost: p\r\nConnection: close\r\n"
    b"Authorization: Bearer sk-secret-0123456789abcdef\r\nContent-Type: application/json\r\nUser-Agent: golden/1\r\n"
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nx-request-id: mine-1\r\n"
    b"Clearpane-User-Id: ada\r\nHelicone-Session-Id: s-1\r\nHelicone-Session-Path: /a/b\r\nHelicone-Session-Name: trip\r\n"
    b"Helicone-Request-Id: r-1\r\nHelicone-Prompt-Id: p-1\r\nHelicone-Property-Team: search\r\nContent-Length: %d\r\n\r\n%b"
    % (len(CHAT), CHAT)
)
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: req_1\r\nContent-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: {}\n\r\n1\r\n\n\r\n0\r\n\r\n"


def steady(envelope: dict[str, Any], port: int) -> dict[str, Any]:
    """The same envelope with what differs from run to run replaced by its kind."""
    text = orjson.dumps(envelope).decode().replace(f"127.0.0.1:{port}", "upstream.test")
    found: dict[str, Any] = json.loads(re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", "2026-01-01T00:00:00.000000Z", text))
    found["request_id"], found["hostname"], found["version"] = "01a1fdba-0000-7000-8000-000000000000", "host", "0.0.0"
    for name, value in found["timing"].items():
        if name.endswith("_ms") and value is not None:
            found["timing"][name] = 1.5
    found["timing"]["chunk_marks"] = [[1.5, size] for _, size in found["timing"]["chunk_marks"][-1:]]
    found["timing"]["chunks"] = found["timing"]["chunks"] and 1  # how the kernel cuts the bytes is its own affair
    return found


async def made(name: str, proxy: Proxy, upstream: Upstream) -> dict[str, Any]:
    answer = SSE if name == "stream.json" else JSON
    upstream.answers(answer[:-1], answer[-1:], pause_s=0.1)  # an answer that comes at once has no `started`
    await proxy.call(REQUEST)
    facts, request, response = await proxy.record()
    if name == "started.json":
        message = envelopes.started(orjson.dumps(proxy.spool.starts[0]), SOURCE, 7)
    elif name == "interrupted.json":
        message = envelopes.interrupted(orjson.dumps(proxy.spool.admitted[0]), SOURCE, 7, 1)
    else:
        message = envelopes.completed(b"".join(completed_payload(orjson.dumps(facts), request, response)), SOURCE, 7, 1)
    envelope: dict[str, Any] = json.loads(message.data)
    return envelope


@pytest.mark.parametrize("name", DIGESTS)
async def test_the_golden_is_what_is_made(name: str, start_proxy: Any, upstream: Upstream) -> None:
    proxy = await start_proxy(upstream={"openai": f"http://127.0.0.1:{upstream.port}"})
    envelope = await made(name, proxy, upstream)
    jsonschema.validate(envelope, SCHEMA, format_checker=jsonschema.FormatChecker())
    assert "sk-secret" not in json.dumps(envelope)
    assert steady(envelope, upstream.port) == json.loads((GOLDENS / name).read_text())


@pytest.mark.parametrize("name", DIGESTS)
def test_the_golden_never_changes(name: str) -> None:
    assert hashlib.sha256((GOLDENS / name).read_bytes()).hexdigest() == DIGESTS[name]


def test_there_is_no_golden_without_a_digest() -> None:
    assert {path.name for path in GOLDENS.iterdir()} == set(DIGESTS)
