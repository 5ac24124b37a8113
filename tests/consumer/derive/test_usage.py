"""One rule for counts that overlap: every token ends in exactly one leaf."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.derive.untrusted import Malformed
from consumer.derive.usage import Leaves, inclusive, rest


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        pytest.param({"prompt": 10, "completion": 5, "total": 15}, Leaves(input_tokens=10, output_tokens=5), id="plain"),
        pytest.param(
            {"prompt": 10, "completion": 5, "total": 15, "cached": 4, "reasoning": 3},
            Leaves(input_tokens=6, cache_read_tokens=4, output_tokens=2, reasoning_tokens=3),
            id="cached and reasoning inside",
        ),
        pytest.param(
            {"prompt": 32, "completion": 500, "total": 765, "reasoning": 233},
            Leaves(input_tokens=32, output_tokens=500, reasoning_tokens=233),
            id="reasoning beside, as the total says",
        ),
        pytest.param(
            {"prompt": 32, "completion": 9, "total": None, "reasoning": 233},
            Leaves(input_tokens=32, output_tokens=9, reasoning_tokens=233),
            id="reasoning beside, being more than the completion",
        ),
        pytest.param(
            {"prompt": 32, "completion": 500, "total": 600, "reasoning": 233},
            Leaves(input_tokens=32, output_tokens=267, reasoning_tokens=233),
            id="a total that explains nothing is not followed",
        ),
        pytest.param(
            {"prompt": 35, "completion": 12, "total": 109},
            Leaves(input_tokens=35, output_tokens=12, reasoning_tokens=62),
            id="thinking in the total",
        ),
        pytest.param(
            {"prompt": 3, "completion": 5, "total": 8, "cached": 10},
            Leaves(input_tokens=3, cache_read_tokens=10, output_tokens=5),
            id="cached beside",
        ),
        pytest.param(
            {"prompt": 2168, "completion": 100, "total": 2268, "cached": 2161, "written": 2161},
            Leaves(input_tokens=7, cache_read_tokens=2161, output_tokens=100),
            id="the same tokens named twice",
        ),
        pytest.param(
            {"prompt": 158, "completion": 32, "total": 190, "written": 43, "reasoning": 10},
            Leaves(input_tokens=115, cache_write_5m_tokens=43, output_tokens=22, reasoning_tokens=10),
            id="written inside",
        ),
        pytest.param({"prompt": None, "completion": None, "total": 9}, Leaves(input_tokens=9), id="a total alone"),
        pytest.param({"prompt": None, "completion": None, "total": None}, None, id="nothing"),
    ],
)
def test_overlapping_counts(counts: dict[str, int | None], expected: Leaves | None) -> None:
    assert inclusive(**counts) == expected  # type: ignore[arg-type]


COUNTS = st.integers(0, 1000)


@given(COUNTS, COUNTS, st.none() | COUNTS, COUNTS, COUNTS, COUNTS)
def test_no_token_is_lost_counted_twice_or_negative(
    prompt: int, completion: int, total: int | None, cached: int, written: int, reasoning: int
) -> None:
    try:
        leaves = inclusive(prompt=prompt, completion=completion, total=total, cached=cached, written=written, reasoning=reasoning)
    except Malformed:
        return
    assert leaves is not None
    assert min(leaves.input_tokens, leaves.output_tokens, leaves.reasoning_tokens, leaves.cache_read_tokens) >= 0
    assert leaves.total >= prompt + completion
    if cached + written <= prompt and reasoning <= completion and total in (None, prompt + completion):
        assert leaves.total == prompt + completion


def test_parts_above_the_whole_are_refused() -> None:
    assert rest(5, 2, 3) == 0
    with pytest.raises(Malformed, match="more than the whole"):
        rest(5, 3, 3)
