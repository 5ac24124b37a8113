"""What is compared with derived usage: counts as the provider states them, and nothing where it states none."""

from typing import Any

import pytest

from bench.counting import stated_counts


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, (None, None, None)),
        ({"input_tokens": 3, "cache_read_input_tokens": 7, "output_tokens": 2}, (10, 2, None)),
        ({"input_tokens": 0, "cache_read_input_tokens": 7, "output_tokens": 0}, (7, 0, None)),
        ({"cache_read_input_tokens": 7}, (None, None, None)),
        ({"promptTokenCount": 0, "thoughtsTokenCount": 4, "totalTokenCount": 4}, (0, 4, 4)),
    ],
)
def test_a_stated_zero_is_a_number_and_what_is_not_stated_is_none(stated: dict[str, Any], expected: tuple[int | None, ...]) -> None:
    assert stated_counts(stated) == expected
