import io
from typing import Any

import pytest

from clearpane.cli.line import Line

ROW: dict[str, Any] = {
    "received_at": "2026-11-21T10:49:51+00:00", "model": "gpt-4o-mini", "status": 200, "end": "complete", "input_tokens": 11,
    "cache_read_tokens": 5, "output_tokens": 43,
   "usage_source": "provider", "cost_total": "0.0000274", "duration_ms": 3538.0, "user_id": "ada",
}  # fmt: skip


def line(**changes: Any) -> str:
    out = io.StringIO()
    Line(out)({**ROW, **changes})
    return out.getvalue()


def test_a_call_on_one_line() -> None:
    shown = line()
    for part in ("gpt-4o-mini", " 200 ", "16 in", "43 out", "$0.000027", "3.54 s", "ada\n"):
        assert part in shown


def test_unknown_is_not_zero() -> None:
    shown = line(input_tokens=None, cache_read_tokens=None, output_tokens=None, cost_total=None, duration_ms=None, model=None)
    assert "? in" in shown
    assert "? out" in shown
    assert "$?" in shown
    assert " 0" not in shown.partition("200")[2]


def test_estimates_and_ends_are_marked() -> None:
    shown = line(usage_source="estimated", end="client_disconnected")
    assert "~16 in" in shown
    assert "200 client_disconnected" in shown


@pytest.mark.parametrize("name", ["model", "user_id"])
def test_no_terminal_escape_passes(name: str) -> None:
    assert "\x1b" not in line(**{name: "\x1b[2Jgone"})
