"""The balance itself: any history is explained, sequence by sequence; what nothing explains is missing."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from clearpane.cli.conservation import Evidence, Seen, balance, holes, lines
from proxy.shipper.ranges import Ranges

SPOOL = "0199a1b2c3d47e5f8091a2b3c4d5e6f7"
BEGIN = datetime(2026, 11, 21, 10, 59, 50, tzinfo=UTC)
FATES = ("lake", "cut", "topic", "spool", "space", "gone", "untraced")


def ranges(numbers: list[int]) -> Ranges:
    return Ranges((number, number) for number in numbers)


def told(fates: list[str]) -> tuple[Mapping[str, Evidence], Mapping[str, Seen]]:
    """What spool, topic and lake say of calls with these fates, one a second."""
    where = {fate: [number for number, found in enumerate(fates) if found == fate] for fate in FATES}
    seen = Seen(topic=ranges(where["topic"]))
    for number in sorted(where["lake"] + where["cut"]):
        seen.add(number, f"id-{number}", BEGIN + timedelta(seconds=number), "interrupted" if fates[number] == "cut" else "complete")
    settled = ranges([n for n, fate in enumerate(fates) if fate in ("lake", "cut", "topic", "gone")])
    names = {number: (f"id-{number}", (BEGIN + timedelta(seconds=number)).isoformat()) for number in where["gone"]}
    stated = Evidence(SPOOL, len(fates), settled, ranges(where["spool"]), {"space": ranges(where["space"])}, names)
    return {SPOOL: stated}, {SPOOL: seen}


@given(st.lists(st.sampled_from(FATES), max_size=40))
def test_every_sequence_is_counted_once_and_by_its_fate(fates: list[str]) -> None:
    found = balance(*told(fates), None)
    counted = found.to_dict()
    assert counted["admitted"] == len(fates)
    assert (counted["completed"], counted["interrupted"]) == (fates.count("lake"), fates.count("cut"))
    assert counted["in_flight"] == fates.count("topic") + fates.count("spool")
    assert counted["dropped"].get("space", 0) == fates.count("space")
    assert counted["missing"] == fates.count("gone") + fates.count("untraced")
    assert found.balanced == (counted["missing"] == 0)
    named = [name for one in found.missing for name in one.request_ids]
    assert named == [f"id-{number}" for number, fate in enumerate(fates) if fate == "gone"]
    covered = [number for one in found.missing for number in range(one.first, one.last + 1)]
    assert covered == [number for number, fate in enumerate(fates) if fate in ("gone", "untraced")]
    assert list(lines(found, 5))[-1] == ("balanced" if found.balanced else f"{counted['missing']} missing, 0 doubled")


def test_hours_are_apart() -> None:
    rows = balance(*told(["lake"] * 15), None).rows
    assert {hour: counts["completed"] for (_, hour), counts in rows.items()} == {"2026-11-21T10": 10, "2026-11-21T11": 5}


def test_the_same_record_twice_is_a_finding() -> None:
    evidence, seen = told(["lake"] * 3)
    seen[SPOOL].add(1, "another id", BEGIN, "complete")
    found = balance(evidence, seen, None)
    assert (found.balanced, found.doubled) == (False, [(SPOOL, 1, "another id")])


def test_a_spool_that_left_nothing_shows_its_holes_alone() -> None:
    _, seen = told(["lake", "gone", "gone", "lake", "untraced"])
    (missing,) = balance({}, seen, None).missing
    assert (missing.first, missing.last) == (1, 2)
    assert "left no account" in missing.why


def test_what_was_given_since_the_look_is_not_judged() -> None:
    """A later record may arrive before an earlier one."""
    evidence, seen = told(["lake", "gone", "lake"])
    seen[SPOOL].add(6, "late", BEGIN, "complete")
    seen[SPOOL].topic.add(4)
    found = balance(evidence, seen, None)
    assert [(one.first, one.last) for one in found.missing] == [(1, 1)]
    assert (found.totals["completed"], found.totals["in_flight"]) == (3, 1)


def test_what_is_older_than_the_look_is_not_judged() -> None:
    evidence, seen = told(["gone", "spool", "lake", "gone", "lake"])
    found = balance(evidence, seen, BEGIN)
    assert [(one.first, one.last) for one in found.missing] == [(3, 3)]
    assert found.totals["in_flight"] == 1


def test_a_spool_that_is_younger_than_the_look_is_judged_wholly() -> None:
    """Else one of which the lake has lost everything would balance."""
    evidence, seen = told(["gone"] * 5)
    (missing,) = balance(evidence, seen, datetime(2025, 1, 1, tzinfo=UTC)).missing
    assert (missing.first, missing.last) == (0, 4)
    assert balance(evidence, seen, BEGIN).balanced


@given(st.lists(st.integers(0, 30)), st.integers(0, 20), st.integers(0, 20))
def test_holes_are_what_is_not_held(held: list[int], begin: int, length: int) -> None:
    found = [number for first, last in holes(ranges(held), begin, begin + length) for number in range(first, last + 1)]
    assert found == [number for number in range(begin, begin + length) if number not in held]
