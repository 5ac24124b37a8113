"""Ranges: the same as a set, however the numbers come."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from proxy.shipper.ranges import Ranges


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8)), max_size=40))
def test_it_is_a_set(added: list[tuple[int, int]]) -> None:
    ranges, model = Ranges(), set()
    for first, length in added:
        ranges.add(first, first + length)
        model.update(range(first, first + length + 1))
        assert {number for number in range(80) if number in ranges} == model
    pairs = ranges.pairs()
    assert all(last + 1 < first for (_, last), (first, _) in itertools.pairwise(pairs))
    assert Ranges(pairs).pairs() == pairs
    assert bool(ranges) == bool(model)
