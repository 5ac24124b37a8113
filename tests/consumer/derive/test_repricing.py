"""Repricing one record: its usage as recorded, its price anew, whatever the record holds."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.derive import PriceBook, derive
from consumer.derive.overlay import Overlay, Rule
from consumer.derive.repricing import COLUMNS, recorded, reprice

BOOK = PriceBook()
DEARER = PriceBook(Overlay([Rule(name="overlay price 1", model="gpt-4o*", factor=Decimal(2))], "0123456789ab"))
ANSWER = {"model": "gpt-4o", "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]}


def record(make: Any, usage: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    envelope = make({**ANSWER, "usage": usage}, **more)
    return {**envelope, "derived": derive(envelope, BOOK), "lake": {}}


def test_the_recorded_usage_is_priced_even_where_the_bodies_are_gone(make: Any) -> None:
    """1,000 input tokens at 2.5 a million, and the overlay's doubles it; the bodies, which named the model, are not kept."""
    found = record(make, {"prompt_tokens": 1000, "completion_tokens": 0})
    found["request"]["body"] = found["response"]["body"] = None
    assert reprice(found, DEARER)["cost_total"] == 2 * recorded(found)["cost_total"] == Decimal("0.005")


def test_the_tier_that_only_the_usage_states_counts(make: Any) -> None:
    """Anthropic: asked for `auto`, answered from a batch, 2.5 and 12.5 a million for claude-opus-4-8."""
    usage = {"input_tokens": 1_000_000, "output_tokens": 0, "service_tier": "batch"}
    answer = {"type": "message", "model": "claude-opus-4-8", "content": [], "stop_reason": "end_turn", "usage": usage}
    asked = {"model": "claude-opus-4-8", "service_tier": "auto", "messages": []}
    envelope = make(answer, request=asked, provider="anthropic", operation="messages")
    found = {**envelope, "derived": derive(envelope, BOOK), "lake": {}}
    assert reprice(found, BOOK) == recorded(found)
    assert recorded(found)["cost_total"] == Decimal("2.5")


def test_recorded_tokens_stay_though_they_would_be_counted_otherwise_today(make: Any) -> None:
    found = record(make, {"prompt_tokens": 1000, "completion_tokens": 0})
    found["derived"]["usage"]["input_tokens"] = 2000
    assert reprice(found, BOOK)["cost_total"] == Decimal("0.005")


@pytest.mark.parametrize(
    "derived", [None, {}, {"parse_error": "derivation broke"}, {"usage": {"source": "unknown"}}, {"usage": {"input_tokens": "x"}}]
)
def test_without_usage_the_cost_stays_as_it_was(make: Any, derived: Any) -> None:
    found = {**record(make, None), "derived": derived}
    assert reprice(found, DEARER) == recorded(found) == dict.fromkeys(COLUMNS)


KEYS = st.sampled_from(["usage", "source", "input_tokens", "stated", "model"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    max_leaves=12,
)
GROUPS = ["request", "response", "derived", "target", "timing", "policy", "lake"]


@given(st.dictionaries(st.sampled_from(GROUPS), JSON))
def test_no_record_makes_it_fail(found: dict[str, Any]) -> None:
    assert set(reprice(found, BOOK)) == set(COLUMNS)
