"""Time to first token and tokens per second, from the proxy's marks."""

import json
from typing import Any

import pytest

from consumer.derive import PriceBook, derive
from consumer.derive.timing import first_token_ms, tokens_per_second

MARKS = {"chunk_marks": [[10.0, 5], [20.0, 50], [30.5, 51]], "last_byte_ms": 120.5}


@pytest.mark.parametrize(("end", "expected"), [(1, 10.0), (5, 10.0), (6, 20.0), (51, 30.5), (52, None), (None, None)])
def test_first_mark_at_which_the_body_held_the_content(end: int | None, expected: float | None) -> None:
    assert first_token_ms(MARKS, end) == expected


@pytest.mark.parametrize(
    ("first", "output", "expected"),
    [(20.5, 11, 100.0), (20.5, 1, None), (20.5, None, None), (None, 11, None), (120.5, 11, None), (500.0, 11, None)],
)
def test_tokens_per_second(first: float | None, output: int | None, expected: float | None) -> None:
    assert tokens_per_second(MARKS, first, output) == expected


@pytest.mark.parametrize("marks", [None, 7, [], [7], [[1]], [["a", "b"]], [[True, True]], [[float("nan"), 99]], [[-1, 99]]])
def test_marks_of_the_wrong_form_are_no_time(marks: Any) -> None:
    assert first_token_ms({"chunk_marks": marks}, 50) is None


def chunk(**delta: str) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta}]})}\n\n"


def test_a_role_a_comment_and_a_ping_are_no_token(make: Any, book: PriceBook) -> None:
    head = ": ping\n\n" + chunk(role="assistant", content="")
    first, second = chunk(content="Hello"), chunk(content=" world, hello")
    ends = [len(head), len(head + first), len(head + first + second)]
    timing = {"chunk_marks": [[5.0, ends[0]], [40.0, ends[1]], [50.0, ends[2]]], "last_byte_ms": 50.0}
    derived = derive(make(head + first + second, timing=timing), book)
    assert derived["streamed"] is True
    assert derived["first_token_ms"] == 40.0
    assert derived["tokens_per_second"] == 300.0  # 3 tokens after the first in 10 ms


@pytest.mark.parametrize("delta", [{"reasoning_content": "Hm"}, {"refusal": "No"}, {"content": "Hi"}])
def test_any_generated_content_is_a_token(delta: dict[str, str], make: Any, book: PriceBook) -> None:
    body = chunk(**delta)
    assert derive(make(body, timing={"chunk_marks": [[7.0, len(body)]]}), book)["first_token_ms"] == 7.0


def test_plain_json_and_compressed_streams_have_no_first_token(make: Any, book: PriceBook) -> None:
    timing = {"chunk_marks": [[7.0, 10_000]], "last_byte_ms": 9.0}
    plain = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
    assert derive(make(plain, timing=timing), book)["first_token_ms"] is None
    assert derive(make(chunk(content="Hi"), timing=timing, content_encoding="gzip"), book)["first_token_ms"] is None
