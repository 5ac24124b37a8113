"""The ladder and the account of gaps, without a disk."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from proxy.spool import space
from proxy.spool.space import Gap, Rung, rung, without_bodies


@given(st.integers(0, 2000), st.integers(0, 1500), st.integers(1, 300), st.integers(0, 300))
def test_the_ladder_never_passes_its_limit_and_drops_bodies_first(limit: int, used: int, bare: int, bodies: int) -> None:
    choice = rung(used, limit, bare + bodies, bare)
    if choice is Rung.KEEP and bodies:
        assert used + bare + bodies <= limit * 0.8
    elif choice is not Rung.DROP:
        assert used + bare <= limit
        assert bodies or choice is Rung.KEEP
    else:
        assert used + bare > limit


@given(st.lists(st.integers(0, 60), unique=True, min_size=1), st.lists(st.integers(61, 99), unique=True))
def test_a_gap_states_exactly_the_sequences_it_was_given(some: list[int], others: list[int]) -> None:
    gap, other = Gap(), Gap()
    for sequence in some:
        gap.add(sequence)
    for sequence in others:
        other.add(sequence)
    gap.merge(other)
    stated = orjson.loads(gap.payload("space"))
    expected = sorted(some + others)
    assert [n for first, last in stated["sequences"] for n in range(first, last + 1)] == expected
    assert (stated["from"], stated["to"], stated["count"], stated["reason"]) == (expected[0], expected[-1], len(expected), "space")
    assert all(before[1] + 1 < after[0] for before, after in zip(gap.ranges, gap.ranges[1:], strict=False))


def test_a_gap_of_very_many_pieces_is_stated_more_coarsely_and_counts_right() -> None:
    gap = Gap()
    for sequence in range(0, 20_000, 2):
        gap.add(sequence)
    assert len(gap.ranges) == space._RANGES_MAX
    assert (gap.count, gap.span) == (10_000, (0, 19_998))


@given(st.binary(max_size=60))
def test_facts_that_are_none_stay_as_they_are(garbage: bytes) -> None:
    assert without_bodies(garbage, ("request",)) is not None


def test_sides_are_stated_once() -> None:
    facts = orjson.dumps({"policy": {"dropped": ["request"]}, "x": 1})
    assert orjson.loads(without_bodies(facts, ("request", "response"))) == {"policy": {"dropped": ["request", "response"]}, "x": 1}
    assert without_bodies(b'{"policy":[]}', ("request",)) == b'{"policy":[]}'
