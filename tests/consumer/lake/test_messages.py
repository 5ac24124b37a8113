"""Any bytes become a candidate or nothing; only our error is raised."""

import contextlib
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.lake.messages import Message, NotAnEnvelope, decode, parse

Make = Callable[..., dict[str, Any]]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(st.binary() | JSON.map(orjson.dumps))
def test_garbage_is_kept_raw(value: bytes) -> None:
    found = decode(Message(7, 1_700_000_000_000, value))
    assert found is not None
    assert (found.raw, found.envelope, found.request_id) == (value, None, None)
    assert found.parse_error


@given(st.dictionaries(st.sampled_from(["schema", "event", "request_id", "attempt", "x"]), JSON))
def test_broken_identity_raises_only_our_error(changes: dict[str, Any]) -> None:
    whole = {"schema": "call.v1", "event": "completed", "request_id": "0199a1b2-c3d4-7e5f-8091-a2b3c4d5e6f7", "attempt": 1}
    with contextlib.suppress(NotAnEnvelope):
        found = parse(orjson.dumps(whole | changes))
        assert found["event"] in ("started", "completed")
        assert isinstance(found["request_id"], str)


@pytest.mark.parametrize(
    "changes",
    [
        {"attempt": True},
        {"attempt": 0},
        {"attempt": "1"},
        {"attempt": 1.0},
        {"request_id": "0199A1B2-C3D4-7E5F-8091-A2B3C4D5E6F7"},
        {"request_id": "0199a1b2c3d47e5f8091a2b3c4d5e6f7"},
        {"request_id": "9b2d8c5e-0000-4000-8000-000000000000"},
        {"request_id": "ffffffff-ffff-7fff-bfff-ffffffffffff"},
        {"request_id": None},
        {"event": "gap"},
        {"schema": "record.v1"},
    ],
)
def test_an_identity_that_cannot_be_relied_on(envelope: Make, changes: dict[str, Any]) -> None:
    with pytest.raises(NotAnEnvelope):
        parse(orjson.dumps(envelope(**changes)))


def test_started_is_no_record(envelope: Make) -> None:
    assert decode(Message(0, 0, orjson.dumps(envelope(event="started")))) is None


@pytest.mark.parametrize("stamp", [-1, -(2**63), 2**63 - 1])
def test_a_broken_clock_stops_nothing(envelope: Make, stamp: int) -> None:
    found = decode(Message(0, stamp, orjson.dumps(envelope())))
    assert found is not None
    assert found.timestamp_ms == 0
