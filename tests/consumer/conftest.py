"""Envelopes as the shipper makes them, and a derivation that needs no prices."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from clearpane.contract.identifiers import new_request_id
from clearpane.contract.records import COLUMNS
from consumer.lake.draft import Derivation

SOURCE = "0199a1b2c3d47e5f8091a2b3c4d5e6f7"
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def envelope() -> Make:
    numbers = itertools.count()

    def make(**changes: Any) -> dict[str, Any]:
        body = '{"model":"m","messages":[{"role":"user","content":"hello, “world”"}]}'
        whole = {
            "schema": "call.v1",
            "event": "completed",
            "request_id": new_request_id(),
            "client_request_id": None,
            "source": SOURCE,
            "sequence": next(numbers),
            "attempt": 1,
            "hostname": "h",
            "version": "0",
            "trace": {"trace_id": None, "span_id": None, "parent_span_id": None, "x_request_id": None},
            "caller": {"user_id": "u", "properties": {"a": "b"}, "tags": []},
            "target": {"provider": "openai", "upstream": "openai", "operation": "chat", "url": "https://example.com/v1/chat/completions"},
            "request": {"method": "POST", "path": "/v1/chat/completions", "headers": {}, "body": body, "body_encoding": "utf-8"},
            "response": {"status": 200, "headers": {}, "body": "{}", "body_encoding": "utf-8", "end": "complete", "error": None},
            "timing": {"received_at": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")},
            "policy": {},
        }
        return whole | changes

    return make


def _row(record: dict[str, Any]) -> dict[str, Any]:
    place = record["lake"]
    return dict.fromkeys(COLUMNS) | {
        "request_id": record["request_id"],
        "received_at": (record.get("timing") or {}).get("received_at"),
        "ingested_at": place["ingested_at"],
        "log": place["log"],
        "offset": place["offset"],
        "attempt": record.get("attempt"),
        "properties": (record.get("caller") or {}).get("properties"),
        "cost_total": record["derived"].get("cost"),
        "parse_error": record["derived"].get("parse_error"),
    }


@pytest.fixture
def derivation() -> Derivation:
    return Derivation(derive=lambda envelope: {"cost": "0.000000000000000001"}, row=_row)
