"""The flat row: every column, each in the form that the index takes."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearpane.contract.records import COLUMNS
from consumer.derive import PriceBook, derive, row

ANSWER = {
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "choices": [{"index": 0, "message": {"content": "Paris."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 14, "completion_tokens": 7, "total_tokens": 21},
}


def test_every_column_of_a_real_record(make: Any, book: PriceBook) -> None:
    envelope = make(ANSWER, streamed=False, timing={"duration_ms": 12.5, "first_byte_ms": 9, "proxy_ms": 0.25})
    envelope["caller"] = {"user_id": "u", "session_id": "s", "session_path": "/a", "session_name": "n", "prompt_id": "p"}
    envelope["caller"] |= {"properties": {"team": "x"}, "tags": [], "key_fingerprint": "0123456789ab", "user_agent": "sdk"}
    envelope |= {"client_request_id": "c", "attempt": 1, "source": "f" * 32, "sequence": 3, "trace": {"trace_id": "t"}}
    lake = {"log": "h-" + "f" * 32, "offset": 3, "ingested_at": "2026-11-20T10:00:01.000000+00:00"}
    found = row({**envelope, "schema": "record.v1", "derived": derive(envelope, book), "lake": lake})
    assert list(found) == list(COLUMNS)
    expected = {
        "request_id": "0199a1b2-c3d4-7e5f-8091-a2b3c4d5e6f7",
        "client_request_id": "c",
        "received_at": datetime(2026, 11, 20, 10, tzinfo=UTC),
        "ingested_at": datetime(2026, 11, 20, 10, 0, 1, tzinfo=UTC),
        "status": 200,
        "end": "complete",
        "provider": "openai",
        "operation": "chat",
        "model": "gpt-4o-2024-08-06",
        "model_requested": "gpt-4o",
        "streamed": False,
        "finish_reason": "stop",
        "user_id": "u",
        "properties": {"team": "x"},
        "trace_id": "t",
        "input_tokens": 14,
        "cache_read_tokens": 0,
        "output_tokens": 7,
        "total_tokens": 21,
        "usage_source": "provider",
        "cost_input": Decimal("0.000035"),
        "cost_output": Decimal("0.00007"),
        "cost_total": Decimal("0.000105"),
        "cost_source": "book",
        "cost_reason": None,
        "duration_ms": 12.5,
        "first_byte_ms": 9.0,
        "attempt": 1,
        "sequence": 3,
        "log": "h-" + "f" * 32,
        "offset": 3,
        "object": None,
        "parse_error": None,
    }
    assert {name: found[name] for name in expected} == expected


def test_an_error_stands_on_the_row(make: Any, book: PriceBook) -> None:
    envelope = make(None, status=502, end="upstream_error")
    envelope["response"]["error"] = {"source": "upstream", "type": "connect_refused", "message": "no"}
    found = row({**envelope, "derived": derive(envelope, book), "lake": {}})
    assert (found["error_source"], found["error_type"], found["total_tokens"]) == ("upstream", "connect_refused", None)


def test_a_message_that_could_not_be_read_at_all() -> None:
    poison = {
        "schema": "record.v1",
        "request_id": None,
        "raw": "AA==",
        "derived": {"parse_error": "not JSON"},
        "lake": {"log": "k-t-0-1", "offset": 7},
    }
    found = row(poison)
    assert {name: value for name, value in found.items() if value is not None} == {"parse_error": "not JSON", "log": "k-t-0-1", "offset": 7}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*COLUMNS, "derived", "usage", "cost", "total", "lake"]), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from([*COLUMNS, "derived", "lake", "timing", "target", "caller", "response"]), JSON, max_size=8))
def test_any_record_has_a_row_of_the_right_forms(record: dict[str, Any]) -> None:
    forms = {"text": str, "integer": int, "number": float, "decimal": Decimal, "flag": bool, "time": datetime, "map": dict, "texts": list}
    found = row(record)
    assert list(found) == list(COLUMNS)
    assert all(value is None or isinstance(value, forms[COLUMNS[name]]) for name, value in found.items())


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e400", "x", "1e21"])
def test_a_decimal_that_the_column_cannot_hold_is_null(text: str) -> None:
    assert row({"derived": {"cost": {"total": text}}})["cost_total"] is None
