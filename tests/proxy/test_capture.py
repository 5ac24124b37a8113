import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import capture as captures
from proxy.capture import Budget, Capture
from proxy.chunk_times import GAPS_MAX, MARKS_MAX, ChunkTimes, gap_quantile_ms


@given(st.lists(st.binary(max_size=50), max_size=30), st.integers(0, 400), st.integers(0, 400))
def test_a_capture_keeps_the_first_bytes_and_hashes_all(pieces: list[bytes], bytes_max: int, budget_max: int) -> None:
    budget = Budget(budget_max)
    capture = Capture(bytes_max, budget)
    for piece in pieces:
        capture.add(piece)
    whole = b"".join(pieces)
    kept = min(len(whole), bytes_max, budget_max)
    assert budget.used == kept
    seen, truncated, digest, found = capture.close()
    assert (seen, b"".join(found), truncated) == (len(whole), whole[:kept], kept < len(whole))
    assert digest == (hashlib.sha256(whole).hexdigest() if truncated else None)
    assert budget.used == 0


def test_open_calls_share_the_budget() -> None:
    budget = Budget(10)
    one, two = Capture(100, budget), Capture(100, budget)
    one.add(b"123456")
    two.add(b"123456")
    assert (one.truncated, two.truncated) == (False, True)
    one.close()
    two.add(b"789")  # what was cut stays cut: a capture has no holes
    assert two.close()[3] == [b"1234"]


def test_chunk_times_are_bounded_and_exact_about_the_largest_gap() -> None:
    times = ChunkTimes()
    for number in range(10_000):
        times.add(number * 10.0 + (500.0 if number > 9000 else 0.0), number)
    assert times.count == 10_000
    count, marks, gaps, gap_max_ms, last_ms = times.noted()
    assert (count, len(marks), len(gaps)) == (10_000, MARKS_MAX, GAPS_MAX)
    assert (gap_quantile_ms(gaps, 0.5), gap_max_ms, last_ms) == (10.0, 510.0, 100_490.0)


def test_no_gap_without_two_pieces() -> None:
    times = ChunkTimes()
    assert (times.first_ms, times.noted()) == (None, (0, [], [], None, 0.0))
    times.add(1.0, 5)
    assert (times.first_ms, times.noted()) == (1.0, (1, [(1.0, 5)], [], None, 1.0))
    assert gap_quantile_ms([], 0.5) is None


def test_a_timed_capture_knows_when_each_kept_piece_came_and_keeps_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "TIMED_PIECES_MAX", 3)
    now_ms, budget = iter([1.0, 2.0, 3.0, 4.0]), Budget(100)
    capture = Capture(100, budget).timed(lambda: next(now_ms))
    for piece in (b"ab", b"c", b"de", b"f"):
        capture.add(piece)
    assert capture.times_ms == [1.0, 2.0, 3.0]
    assert capture.close() == (6, True, hashlib.sha256(b"abcdef").hexdigest(), [b"ab", b"c", b"de"])
    assert budget.used == 0


def test_a_timed_capture_leaves_half_of_the_budget_to_others() -> None:
    budget = Budget(100)
    timed, other = Capture(100, budget).timed(lambda: 1.0), Capture(100, budget)
    for _ in range(6):
        timed.add(b"0123456789")
    other.add(b"x" * 50)
    assert (timed.truncated, other.truncated, budget.used) == (True, False, 100)
    timed.close()
    other.close()
    assert budget.used == 0
