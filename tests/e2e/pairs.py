"""Cases of many dimensions such that every two values of two dimensions meet in one of them."""

import itertools
import random
from collections.abc import Callable, Mapping, Sequence

Case = dict[str, str]
# How many candidates a case is chosen from; more makes the table hardly shorter.
CANDIDATES = 24


def pairwise(dimensions: Mapping[str, Sequence[str]], fits: Callable[[Case], bool]) -> list[Case]:
    """The same table on every run. Pairs that no fitting case has are left out."""
    chance = random.Random(2)
    names = list(dimensions)
    missing = {
        ((one, a), (other, b)) for one, other in itertools.combinations(names, 2) for a in dimensions[one] for b in dimensions[other]
    }
    cases: list[Case] = []
    while missing:
        pair = min(missing)
        drawn = [{name: chance.choice(dimensions[name]) for name in names} | dict(pair) for _ in range(CANDIDATES * 8)]
        fitting = [case for case in drawn if fits(case)][:CANDIDATES]
        if not fitting:
            missing.discard(pair)
            continue
        best = max(fitting, key=lambda case: len(missing & _pairs(case)))
        missing -= _pairs(best)
        cases.append(best)
    return cases


def _pairs(case: Case) -> set[tuple[tuple[str, str], tuple[str, str]]]:
    return set(itertools.combinations(case.items(), 2))


def named(case: Case) -> str:
    return ",".join(case.values())
