"""The table that `make faults` writes into the docs."""

import pytest

from tests.faults.table import PAGE, table, written

BEGIN, END = "<!-- faults: made by `make faults`, do not edit -->", "<!-- faults: end -->"

LINE = {"fault": "F10", "did": "a | b", "calls": 1200, "recorded": 1200, "lost": 0, "doubled": 0, "seen": "", "seconds": 90.0, "seed": 3}


def test_rows_stand_in_the_order_of_their_numbers() -> None:
    found = table([LINE, LINE | {"fault": "F9"}], "2026-11-21, commit abc").splitlines()
    assert found[2:4] == ["| F9 | a / b | 1,200 | 1,200 | 0 | 0 |  |", "| F10 | a / b | 1,200 | 1,200 | 0 | 0 |  |"]
    assert found[-1] == "2026-11-21, commit abc, seed 3: 2 faults, 2,400 calls, 3 minutes."


def test_it_replaces_what_stood_between_the_marks_and_nothing_else() -> None:
    page = f"before\n\n{BEGIN}\n\nold\n\n{END}\n\nafter\n"
    once = written(page, "new", "faults")
    assert once == f"before\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n"
    assert written(once, "new", "faults") == once
    with pytest.raises(ValueError, match="no <!-- faults"):
        written("nothing", "new", "faults")


@pytest.mark.parametrize("target", ["faults", "soak"])
def test_the_page_has_the_marks(target: str) -> None:
    assert "\n\nanew\n\n" in written(PAGE.read_text(), "anew", target)
