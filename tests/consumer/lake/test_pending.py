"""Where a log is cut: any cuts cover it without hole or overlap, and never mix a new hour into an older object."""

from hypothesis import given
from hypothesis import strategies as st

from consumer.lake.messages import Candidate
from consumer.lake.pending import Limits, Pending

HOUR_MS = 3_600_000

STEPS = st.lists(
    st.tuples(st.integers(1, 3), st.integers(-1, 2), st.integers(1, 50), st.booleans()), min_size=1, max_size=40
)  # (step in offsets, step in half hours, size, a candidate)


@given(STEPS, st.integers(1, 5), st.integers(1, 120))
def test_cuts_cover_the_log(steps: list[tuple[int, int, int, bool]], records_max: int, bytes_max: int) -> None:
    pending, offset, stamp = Pending(end=0), 0, 1000 * HOUR_MS
    sent = []
    for step, hours, size, real in steps:
        offset, stamp = offset + step, stamp + hours * HOUR_MS // 2
        candidate = Candidate(offset=offset, timestamp_ms=stamp, size=size) if real else None
        pending.add(offset, candidate)
        sent += [candidate] if candidate else []
    tail, stored = 0, []
    while (cut := pending.cut(Limits(records_max=records_max, bytes_max=bytes_max))) is not None:
        assert cut.end > tail
        assert len(cut.candidates) <= records_max
        assert len(cut.candidates) == 1 or sum(c.size for c in cut.candidates) <= bytes_max
        assert cut.candidates[0].timestamp_ms == cut.anchor_ms
        assert all(c.timestamp_ms // HOUR_MS <= cut.anchor_ms // HOUR_MS and tail <= c.offset < cut.end for c in cut.candidates)
        stored += cut.candidates
        tail = cut.end
        pending.advance(tail)
    assert stored == sent
    assert pending.bytes == 0


def test_what_was_read_before_is_ignored() -> None:
    pending = Pending(end=5)
    pending.add(4, Candidate(offset=4, timestamp_ms=0, size=1))
    pending.add(6, Candidate(offset=6, timestamp_ms=0, size=1))
    pending.add(6, Candidate(offset=6, timestamp_ms=0, size=1))
    assert [c.offset for c in pending.candidates] == [6]


def test_the_anchor_outlives_a_copy() -> None:
    """Else two writers that disagree about copies would choose different keys for one place."""
    pending, limits = Pending(end=0), Limits(records_max=9, bytes_max=99)
    pending.add(0, Candidate(offset=0, timestamp_ms=HOUR_MS - 1, size=1))
    cut = pending.cut(limits)
    assert cut is not None
    pending.drop(cut)
    assert pending.cut(limits) is None
    pending.add(1, Candidate(offset=1, timestamp_ms=HOUR_MS + 1, size=1))
    cut = pending.cut(limits)
    assert cut is not None
    assert (cut.candidates, cut.end, cut.anchor_ms, cut.needed) == ([], 1, HOUR_MS - 1, True)
