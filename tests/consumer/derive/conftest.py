"""Envelopes made around one request and one answer, and the price book, loaded once."""

import base64
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from consumer.derive import PriceBook

Make = Callable[..., dict[str, Any]]
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "What is the capital of France?"}]}


@pytest.fixture(scope="session")
def book() -> PriceBook:
    return PriceBook()


@pytest.fixture(scope="session")
def make() -> Make:
    """`answer` and `request` are JSON values, texts as they stand on the wire, or None."""
    return _envelope


@pytest.fixture(scope="session")
def frame() -> Callable[..., bytes]:
    """One message of an AWS event stream: `frame("chunk", b"...")`; `frame(None, payload, headers={...})` for other headers."""
    return _frame


@pytest.fixture(scope="session")
def wire_of() -> Callable[[dict[str, Any]], bytes]:
    """The bytes of a golden's answer."""
    return _wire


@pytest.fixture(scope="session")
def envelope_of() -> Make:
    """The envelope of a golden: `tests/contract/<provider>/`."""
    return _golden


def _frame(event: str | None, payload: bytes, headers: dict[str, str] | None = None) -> bytes:
    texts = headers or {":event-type": event or "", ":content-type": "application/json", ":message-type": "event"}
    head = b"".join(struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(v)) + v.encode() for name, v in texts.items())
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + payload
    return message + struct.pack("!I", zlib.crc32(message))


def _wire(golden: dict[str, Any]) -> bytes:
    if "messages" in golden:
        return b"".join(_message(each) for each in golden["messages"])
    if "events" in golden:
        events = "".join(
            (f"event: {each['type']}\n" if "named" in golden else "") + f"data: {json.dumps(each)}\n\n" for each in golden["events"]
        )
        return (events + ("data: [DONE]\n\n" if "done" in golden else "")).encode()
    if "lines" in golden:
        return "".join(json.dumps(each) + "\n" for each in golden["lines"]).encode()
    if "array" in golden:
        return ("[" + ",\r\n".join(json.dumps(each) for each in golden["array"]) + "]").encode()
    return (golden["body"] if "body" in golden else json.dumps(golden["answer"])).encode()


def _message(each: dict[str, Any]) -> bytes:
    if "chunk" in each:
        inner = base64.b64encode(json.dumps(each["chunk"]).encode()).decode()
        return _frame("chunk", json.dumps({"bytes": inner, "p": "abcdef"}).encode())
    return _frame(each["event"], json.dumps(each["payload"]).encode())


def _golden(golden: dict[str, Any], **more: Any) -> dict[str, Any]:
    data = _wire(golden)
    facts = {name: golden[name] for name in ("provider", "operation", "path", "request")}
    found = _envelope(None, status=golden.get("status", 200), **facts, **more)
    found["request"]["method"] = golden.get("method", "POST")
    body, encoding = (base64.b64encode(data).decode(), "base64") if "messages" in golden else (data.decode(), "utf-8")
    found["response"] |= {"headers": golden.get("headers", {}), "body": body, "body_encoding": encoding, "body_bytes": len(data)}
    return found


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) or value is None else json.dumps(value)


def _side(body: Any) -> dict[str, Any]:
    text = _text(body)
    return {
        "headers": {},
        "body": text,
        "body_encoding": "utf-8" if text else None,
        "content_encoding": None,
        "body_bytes": len(text.encode("utf-8", "replace")) if text else 0,
        "body_sha256": None,
        "truncated": False,
    }


def _envelope(
    answer: Any,
    *,
    request: Any = CHAT,
    provider: str | None = "openai",
    operation: str = "chat",
    path: str = "/v1/chat/completions",
    status: int | None = 200,
    end: str = "complete",
    received_at: str = "2026-11-20T10:00:00.000000+00:00",
    timing: dict[str, Any] | None = None,
    policy: dict[str, Any] | None = None,
    **response: Any,
) -> dict[str, Any]:
    return {
        "schema": "call.v1",
        "event": "completed",
        "request_id": "0199a1b2-c3d4-7e5f-8091-a2b3c4d5e6f7",
        "target": {"provider": provider, "upstream": provider, "operation": operation, "url": None},
        "request": {"method": "POST", "path": path, **_side(request)},
        "response": {**_side(answer), "status": status, "streamed": None, "end": end, "error": None, **response},
        "timing": {"received_at": received_at, "last_byte_ms": None, "chunk_marks": [], **(timing or {})},
        "policy": {"omitted": [], "dropped": [], **(policy or {})},
    }
