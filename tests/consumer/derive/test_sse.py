"""The parser of server-sent events: the standard's rules, any split of the bytes, bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.derive.sse import Event, Parser, SSEError

LINES = st.sampled_from(
    [
        b"data: a",
        b"data:b",
        b"data:  c",
        b"data",
        b"data:",
        b"event: x",
        b"event:",
        b": comment",
        b"id: 7",
        b"retry: 9",
        b"",
        b"noise",
        b"data: \xff",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=30).map(lambda pairs: b"".join(line + end for line, end in pairs))


def whole(data: bytes) -> list[Event]:
    parser = Parser()
    return parser.feed(data) + parser.close()


def split(data: bytes, cuts: list[int]) -> list[Event]:
    parser, found, at = Parser(), [], 0
    for cut in sorted(min(cut, len(data)) for cut in cuts):
        found += parser.feed(data[at:cut])
        at = cut
    return found + parser.feed(data[at:]) + parser.close()


def texts(data: bytes) -> list[tuple[str, bytes]]:
    return [(event.name, event.data) for event in whole(data)]


@given(STREAMS, st.lists(st.integers(0, 200), max_size=20))
def test_any_split_of_a_stream_gives_the_same_events(data: bytes, cuts: list[int]) -> None:
    assert split(data, cuts) == whole(data)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=20))
def test_any_split_of_garbage_gives_the_same_events(data: bytes, cuts: list[int]) -> None:
    assert split(data, cuts) == whole(data)


@given(STREAMS)
def test_byte_by_byte(data: bytes) -> None:
    assert split(data, list(range(len(data)))) == whole(data)


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_garbage_raises_only_our_error_and_bounds_do_not_depend_on_the_split(data: bytes, cuts: list[int]) -> None:
    def outcome(pieces: list[int]) -> bool:
        parser, at = Parser(line_bytes_max=40, event_bytes_max=60), 0
        try:
            for cut in [*sorted(min(piece, len(data)) for piece in pieces), len(data)]:
                parser.feed(data[at:cut])
                at = cut
            parser.close()
        except SSEError:
            return False
        return True

    assert outcome(cuts) == outcome([])


def test_the_examples_of_the_standard() -> None:
    assert texts(b"data: YHOO\ndata: +2\ndata: 10\n\n") == [("message", b"YHOO\n+2\n10")]
    assert texts(b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n") == [
        ("message", b"first event"),
        ("message", b"second event"),
        ("message", b" third event"),
    ]
    assert texts(b"data\n\ndata\ndata\n\n") == [("message", b""), ("message", b"\n")]
    assert texts(b"data:test\n\ndata: test\n\n") == [("message", b"test")] * 2


def test_names_last_one_event() -> None:
    assert texts(b"event: add\ndata: 1\n\ndata: 2\n\nevent: gone\n\ndata: 3\n\n") == [("add", b"1"), ("message", b"2"), ("message", b"3")]


def test_byte_order_mark_counts_only_at_the_start() -> None:
    assert texts(b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n") == [("message", b"a")]


def test_carriage_returns_alone_and_before_line_feeds() -> None:
    assert texts(b"data: a\rdata: b\r\rdata: c\r\n\r\n") == [("message", b"a\nb"), ("message", b"c")]


def test_the_event_that_the_end_cut_off_is_given_at_close() -> None:
    parser = Parser()
    assert parser.feed(b"data: a\n\ndata: b") == [Event("message", b"a", 9)]
    assert parser.close() == [Event("message", b"b", 16)]


def test_end_is_where_the_event_was_whole() -> None:
    data = b": hi\r\n\r\ndata: a\r\n\r\nevent: x\ndata: b\n\n"
    ends = [event.end for event in whole(data)]
    assert [data[:end].endswith(tail) for end, tail in zip(ends, [b"a\r\n\r\n", b"b\n\n"], strict=True)] == [True, True]


@pytest.mark.parametrize("data", [b"data: " + b"x" * 100, b"data: " + b"x" * 100 + b"\n"])
def test_a_line_over_its_bound(data: bytes) -> None:
    with pytest.raises(SSEError, match="line longer than 64"):
        Parser(line_bytes_max=64).feed(data)


def test_more_lines_than_its_bound() -> None:
    parser = Parser(lines_max=10)
    parser.feed(b"\n" * 10)
    with pytest.raises(SSEError, match="more lines"):
        parser.feed(b"\n")


def test_an_event_over_its_bound() -> None:
    with pytest.raises(SSEError, match="event larger than 100"):
        Parser(event_bytes_max=100).feed(b"data: 0123456789\n" * 20)
