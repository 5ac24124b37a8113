"""Envelopes made around one request and one answer, and the price book, loaded once."""

import json
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
