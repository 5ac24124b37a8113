import hashlib

from hypothesis import given
from hypothesis import strategies as st

from proxy.capture import Budget, Capture
from proxy.chunk_times import GAPS_MAX, MARKS_MAX, ChunkTimes


@given(st.lists(st.binary(max_size=50), max_size=30), st.integers(0, 400), st.integers(0, 400))
def test_a_capture_keeps_the_first_bytes_and_hashes_all(pieces: list[bytes], bytes_max: int, budget_max: int) -> None:
    budget = Budget(budget_max)
    capture = Capture(bytes_max, budget)
    for piece in pieces:
        capture.add(piece)
    whole = b"".join(pieces)
    kept = min(len(whole), bytes_max, budget_max)
    assert capture.bytes() == whole[:kept]
    assert capture.truncated == (kept < len(whole))
    assert (capture.seen, capture.sha256()) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert budget.used == kept
    capture.close()
    assert budget.used == 0


def test_open_calls_share_the_budget() -> None:
    budget = Budget(10)
    one, two = Capture(100, budget), Capture(100, budget)
    one.add(b"123456")
    two.add(b"123456")
    assert (one.truncated, two.truncated, two.bytes()) == (False, True, b"1234")
    one.close()
    two.add(b"789")  # what was cut stays cut: a capture has no holes
    assert two.bytes() == b"1234"


def test_chunk_times_are_bounded_and_exact_about_the_largest_gap() -> None:
    times = ChunkTimes()
    for number in range(10_000):
        times.add(number * 10.0 + (500.0 if number > 9000 else 0.0), number)
    assert times.count == 10_000
    assert len(times.marks) == MARKS_MAX
    assert len(times._gaps) == GAPS_MAX
    assert (times.gap_quantile_ms(0.5), times.gap_max_ms) == (10.0, 510.0)


def test_no_gap_without_two_pieces() -> None:
    times = ChunkTimes()
    assert (times.last_ms, times.gap_quantile_ms(0.5)) == (None, None)
    times.add(1.0, 5)
    assert (times.last_ms, times.gap_quantile_ms(0.5), times.gap_max_ms) == (1.0, None, None)
