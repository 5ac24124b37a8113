"""The demo's account comes out even only when it is even."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from clearpane.cli import account
from clearpane.cli.account import Recorded
from clearpane.cli.fake import Entry
from clearpane.cli.fake.models import Tokens

TOKENS = Tokens(input=3, cache_read=4, output=5, reasoning=6)
ENTRY = Entry(
    id="chatcmpl-1",
    request_id="req_1",
    path="/v1/chat/completions",
    model="gpt-4.1",
    status=200,
    streamed=False,
    delivered=True,
    usage={"prompt_tokens": 7},
    tokens=TOKENS,
    cost=Decimal("0.0001"),
    request_sha256="aa",
    request_bytes=10,
)
ROW = {
    "request_id": "id-1",
    "status": 200,
    "usage_source": "provider",
    "input_tokens": 3,
    "cache_read_tokens": 4,
    "cache_write_5m_tokens": 0,
    "cache_write_1h_tokens": None,
    "output_tokens": 5,
    "reasoning_tokens": 6,
    "cost_total": Decimal("0.000100000000000000"),
}
SILENT = replace(ENTRY, tokens=None, usage=None, cost=None)


def recorded(sha256: str = "aa", **changes: Any) -> Recorded:
    return Recorded({**ROW, **changes}, {"request": {"body_sha256": sha256}})


def test_even():
    assert account.differences([ENTRY], [recorded()]) == []


def test_a_call_whose_usage_was_not_stated_is_not_compared():
    assert account.differences([SILENT], [recorded(usage_source="estimated", input_tokens=99, cost_total=Decimal(1))]) == []


@pytest.mark.parametrize(
    ("entries", "calls", "words"),
    [
        ([ENTRY], [], "/v1/chat/completions gpt-4.1: not recorded"),
        ([ENTRY], [recorded(), recorded(request_id="id-2")], "recorded 2 times"),
        ([], [recorded()], "id-1: recorded, but the provider never saw it"),
        ([ENTRY], [recorded(status=500)], "status 500 recorded, 200 answered"),
        ([ENTRY], [recorded(usage_source="estimated")], "recorded as estimated, though the provider stated it"),
        ([ENTRY], [recorded(output_tokens=6)], "6 output_tokens recorded, 5 stated"),
        ([ENTRY], [recorded(cache_write_1h_tokens=1)], "1 cache_write_1h_tokens recorded, 0 stated"),
        ([ENTRY], [recorded(cost_total=Decimal("0.0001001"))], "cost 0.0001001 recorded, 0.0001 by the list price"),
        ([ENTRY], [recorded(cost_total=None)], "cost None recorded"),
        ([SILENT], [recorded()], "which stated none"),
    ],
)
def test_a_difference_is_told_in_words(entries, calls, words):
    (found,) = account.differences(entries, calls)
    assert words in found


def test_stated_leaves_out_what_was_not_stated():
    assert account.stated([ENTRY, SILENT, ENTRY]) == Decimal("0.0002")
