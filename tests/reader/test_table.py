"""The table fits, hides nothing that matters, and never shows the unknown as 0."""

from datetime import UTC, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reader import table


def lines(rows: list[Any], width: int = 160, **options: Any) -> list[str]:
    shape = table.layout(rows, width=width, zone=UTC, **options)
    return [shape.header(), *map(shape.line, rows)]


def cells(rows: list[Any]) -> list[dict[str, str]]:
    header, *body = lines(rows)
    starts = [header.index(name) for name in header.split()]
    assert len({len(line) for line in [header]}) == 1
    return [dict(zip(header.split(), line.split(), strict=True)) for line in body] if starts else []


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_it_fits(maker: Any, width: int) -> None:
    rows = [
        maker.call(maker.now + timedelta(seconds=i), model="a-very-long-name-of-a-model-2025-01-01", user_id="somebody@example.com" * 3)
        for i in range(5)
    ]
    rows += [maker.call(end="client_disconnected", input_tokens=123456, duration_ms=123456.7, usage_source="estimated")]
    assert max(map(len, lines(rows, width))) <= width


def test_a_small_terminal_keeps_ids_that_show_takes(maker: Any) -> None:
    rows = [maker.call(maker.now + timedelta(milliseconds=i), model="a-model-with-a-name" * 3) for i in range(3)]
    assert [line.split()[-1] for line in lines(rows, 80)[1:]] == [row["request_id"][:13] for row in rows]
    same = [maker.call(maker.now, model="a-model-with-a-name" * 3) for _ in range(2)]
    assert [line.split()[-1] for line in lines(same, 80)[1:]] == [row["request_id"][:18] for row in same]


def test_unknown_is_never_zero(maker: Any) -> None:
    leaves = {name: None for name in maker.call() if name.endswith("_tokens")}
    (shown,) = cells([maker.call(cost_total=None, duration_ms=None, status=None, end="interrupted", user_id="u", **leaves)])
    assert (shown["COST"], shown["IN"], shown["OUT"], shown["MS"], shown["STATUS"]) == ("?", "?", "?", "?", "cut")


def test_tokens_are_the_sums_of_their_buckets_and_estimates_are_marked(maker: Any) -> None:
    row = maker.call(input_tokens=1, cache_read_tokens=20, cache_write_1h_tokens=300, output_tokens=4, reasoning_tokens=50)
    (shown, estimated) = cells([row, row | {"usage_source": "estimated"}])
    assert (shown["IN"], shown["OUT"]) == ("321", "54")
    assert (estimated["IN"], estimated["OUT"]) == ("~321", "~54")


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "?"),
        ("0", "$0"),
        ("12.5", "$12.5000"),
        ("0.0123456", "$0.0123"),
        ("0.0000222", "$0.0000222"),
        ("0.000000000000000001", "$0.000000000000000001"),
    ],
)
def test_money(amount: str | None, text: str) -> None:
    assert table.money(None if amount is None else Decimal(amount)) == text


def test_totals_say_what_they_leave_out(maker: Any) -> None:
    assert table.totals([maker.call(), maker.call(cost_total=None)]) == "2 calls · $0.0000222 · 1 of unknown cost"
    assert table.totals([maker.call(cost_total=None)]) == "1 call · ?"


def test_a_record_that_could_not_be_parsed_has_a_line(maker: Any) -> None:
    row = dict.fromkeys(maker.call()) | {"parse_error": "not JSON"}
    assert "(unreadable)" in lines([row])[1]


def test_colours_are_only_for_terminals(maker: Any) -> None:
    rows = [maker.call(), maker.call(status=500)]
    assert "\x1b" not in "".join(lines(rows))
    assert "\x1b[31m500" in "".join(lines(rows, colored=True))


@given(st.text(max_size=60))
def test_no_control_character_reaches_the_terminal(text: str) -> None:
    assert all(letter.isprintable() for letter in table.printable(text))


def test_a_callers_name_cannot_move_the_cursor(maker: Any) -> None:
    assert "\x1b" not in "".join(lines([maker.call(user_id="\x1b[2Jme", model="\r\nx")]))


def test_the_grid_of_a_query(maker: Any) -> None:
    found = table.grid(("name", "n"), [("a", 1), (None, 22), ({"x": "y"}, None)], width=80)
    assert found == ["name   n", "────  ──", "a      1", "-     22", "x=y    -"]


def test_a_grid_too_wide_stands_below_one_another() -> None:
    found = table.grid([f"column_{i}" for i in range(20)], [tuple(range(20))], width=80)
    assert found[0] == "column_0   0"
    assert found[-1] == ""
