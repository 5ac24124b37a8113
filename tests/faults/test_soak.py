"""The words of the soak's oracle: what counts as flat, as explained, as passed."""

import pytest

from tests.e2e.system import Outcome
from tests.faults import soak

WHOLE, BROKEN = Outcome(200, True, 0.1, 100.0), Outcome(None, False, 0.1, 100.0)


@pytest.mark.parametrize(
    ("rss_kib", "descriptors", "flat"),
    [
        (lambda n: 100_000 + n % 7, lambda n: 40 + n % 5, True),
        (lambda n: 50_000 if n < 20 else 150_000, lambda n: 40, True),  # warming up
        (lambda n: 100_000 + 500 * n, lambda n: 40, False),
        (lambda n: 100_000, lambda n: 40 + n, False),
    ],
)
def test_growth_is_not_flat(rss_kib: object, descriptors: object, flat: bool) -> None:
    samples = [(rss_kib(n), descriptors(n)) for n in range(200)]  # type: ignore[operator]
    assert soak._flatness(samples)["flat"] is flat
    assert soak._flatness(samples[:50])["flat"] is None


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
