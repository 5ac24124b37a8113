"""The words of the soak's oracle: what counts as explained, as passed."""

import pytest

from tests.e2e.system import Outcome
from tests.faults import soak

WHOLE, BROKEN = Outcome(200, True, 0.1, 100.0), Outcome(None, False, 0.1, 100.0)


def test_only_a_workers_death_explains_a_broken_call() -> None:
    outcomes = {"a": WHOLE, "b": BROKEN, "c": Outcome(503, True, 0.1, 100.0)}
    assert soak.unexplained(outcomes, []) == ["b", "c"]
    assert soak.unexplained(outcomes, [101.0]) == []
    assert soak.unexplained(outcomes, [200.0, 50.0]) == ["b", "c"]


@pytest.mark.parametrize("wrong", ["lost", "doubled", "findings", "broken_without_a_death", "processes"])
def test_anything_wrong_is_a_failure(wrong: str) -> None:
    found = {"lost": [], "doubled": [], "findings": [], "broken_without_a_death": [], "processes": {"worker": {"flat": None}}}
    assert soak.passed(found)
    changed = {"worker": {"flat": False}} if wrong == "processes" else ["call-1"]
    assert not soak.passed({**found, wrong: changed})


def test_the_words_say_what_was_found() -> None:
    process = {"lives": 3, "rss_kib": [1024, 2048, 2048, 2048], "rss_kib_max": 4096, "descriptors": [9, 9, 9, 9], "descriptors_max": 12}
    found = {
        "seed": 4, "seconds": 120, "calls": 2000, "whole": 1998, "recorded": 2000, "objects": 12, "by_kafka": 1500, "by_http": 500,
        "attempts": {1: 1990, 2: 10}, "lost": [], "doubled": [], "findings": [], "broken_without_a_death": [],
        "faults": {"broker_killed": 3}, "processes": {"worker": process},
    }  # fmt: skip
    text = soak.words(found)
    assert "seed 4: 2,000 calls in 2 minutes, 0 lost, 0 doubled" in text
    assert "2 calls broken by the death of their worker, 0 without one" in text
    assert "| worker | 3 | 1, 2, 2, 2, 4 | 9, 9, 9, 9, 12 |" in text
    assert "Faults: broker killed 3." in text
