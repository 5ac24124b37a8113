"""What people write as a filter."""

import contextlib
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reader import filter as filters
from reader.filter import BadFilter

NOW = datetime(2026, 11, 21, 10, 30, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("10m", NOW - timedelta(minutes=10)),
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        (" 1 W ", NOW - timedelta(weeks=1)),
        ("90s", NOW - timedelta(seconds=90)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=NOW.tzinfo)),
        ("2026-11-20T10:00", datetime(2026, 11, 20, 10, tzinfo=NOW.tzinfo)),
        ("2026-11-20T10:00Z", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20 10:00:01.5+05:00", datetime(2026, 11, 20, 5, 0, 1, 500000, tzinfo=UTC)),
    ],
)
def test_moments(text: str, moment: datetime) -> None:
    assert filters.moment(text, NOW) == moment


@given(st.text(max_size=30) | st.from_regex(r"\d{1,8}[smhdw]", fullmatch=True))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    for parse in (lambda text: filters.moment(text, NOW), filters.status, filters.cost, lambda text: filters.properties([text])):
        with contextlib.suppress(BadFilter):
            parse(text)


@pytest.mark.parametrize("text", ["", "99", "099", "4x", "0xx", "ok", "2000"])
def test_what_is_no_status(text: str) -> None:
    with pytest.raises(BadFilter):
        filters.status(text)


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "1e30", "a lot"])
def test_what_is_no_cost(text: str) -> None:
    with pytest.raises(BadFilter):
        filters.cost(text)


def test_costs_are_exact() -> None:
    assert filters.cost(" $0.1 ") == Decimal("0.1")


def test_properties_keep_what_stands_behind_the_first_equals_sign() -> None:
    assert filters.properties(["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    for text in ("a", "=b", ""):
        with pytest.raises(BadFilter):
            filters.properties([text])
