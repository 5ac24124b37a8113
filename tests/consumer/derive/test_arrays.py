"""The splitter of streamed JSON arrays: elements as they close, any split of the bytes, bounds."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.derive.arrays import ArrayError, Element, Splitter

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab"\\[]{},\n\u00e9', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a"\\}', max_size=3), inner, max_size=3),
    max_leaves=8,
)


def split(data: bytes, cuts: list[int]) -> list[Element]:
    splitter, found, at = Splitter(), [], 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        found += splitter.feed(data[at:cut])
        at = cut
    return found


@given(st.lists(VALUES, max_size=5), st.sampled_from([None, 1]), st.lists(st.integers(0, 300), max_size=12))
def test_any_split_of_an_array_gives_its_elements(values: list[Any], indent: int | None, cuts: list[int]) -> None:
    data = json.dumps(values, indent=indent, ensure_ascii=False).encode()
    assert [json.loads(element.data) for element in split(data, cuts)] == values
    assert split(data, cuts) == split(data, [])


@given(st.text(alphabet='[]{},"\\ a1', max_size=60).map(str.encode), st.lists(st.integers(0, 60), max_size=12))
def test_garbage_raises_only_our_error_however_it_is_split(data: bytes, cuts: list[int]) -> None:
    def outcome(pieces: list[int]) -> list[Element] | None:
        try:
            return split(data, pieces)
        except ArrayError:
            return None

    assert outcome(cuts) == outcome([])


def test_an_element_is_given_when_its_own_bracket_closes() -> None:
    splitter = Splitter()
    assert splitter.feed(b'[{"a": [1]}') == [Element(b'{"a": [1]}', 11)]
    assert splitter.feed(b'\n,{"b": "}"') == []
    assert splitter.feed(b"}\n]\n") == [Element(b'{"b": "}"}', 23)]


def test_elements_of_a_cut_array_are_those_that_closed() -> None:
    assert [element.data for element in split(b'[{"a": 1},\r\n{"b": 2},\r\n{"c', [])] == [b'{"a": 1}', b'{"b": 2}']


@pytest.mark.parametrize("data", [b"{}", b"x", b"[] 1", b'"['])
def test_what_is_no_array(data: bytes) -> None:
    with pytest.raises(ArrayError):
        Splitter().feed(data)


@pytest.mark.parametrize("data", [b'["' + b"x" * 100, b'["' + b"x" * 100 + b'"]'])
def test_an_element_over_its_bound(data: bytes) -> None:
    with pytest.raises(ArrayError, match="element larger than 64"):
        Splitter(element_bytes_max=64).feed(data)
