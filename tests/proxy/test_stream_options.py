"""The usage that is asked for on a caller's behalf: bytes into a request, one event out of an answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.stream_options import EVENT_BYTES_MAX, Filter, NotUnderstood, ask

ASKED = b'"include_usage":true'
USAGE = b'{"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}'
TEXT = b'{"id":"c","choices":[{"index":0,"delta":{"content":"\\"choices\\": []"}}],"usage":null}'
FILTERED = b'{"choices":[],"prompt_filter_results":[]}'  # Azure's first chunk
LARGE = b'{"choices":[],"usage":{"a":"' + b"x" * EVENT_BYTES_MAX + b'"}}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"stream": true, "n": 1.0}', b'{"stream_options":{' + ASKED + b'},"stream": true, "n": 1.0}'),
        (b' {"a":1,\n"stream":true}', b' {"stream_options":{' + ASKED + b'},"a":1,\n"stream":true}'),
        (b'{"stream":true,"stream_options":null}', b'{"stream":true,"stream_options":{' + ASKED + b"}}"),
        (b'{"stream":true,"stream_options": { } ,"n":1}', b'{"stream":true,"stream_options": {' + ASKED + b'} ,"n":1}'),
        (b'{"stream":true,"stream_options":{ "x":1}}', b'{"stream":true,"stream_options":{ ' + ASKED + b',"x":1}}'),
    ],
)
def test_bytes_are_inserted_and_all_others_stay(body: bytes, expected: bytes) -> None:
    assert ask(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b'{"stream":false}',
        b'{"messages":[{"content":"\\"stream\\":true"}]}',
        b'{"tools":[{"stream":true}]}',
        b'{"stream":true,"stream_options":{"include_usage":true}}',
        b'{"stream":true,"stream_options":{"include_usage":false}}',
    ],
)
def test_what_is_not_streamed_or_says_itself_what_it_wants_is_left_alone(body: bytes) -> None:
    assert ask(body) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"stream":true',
        b'[{"stream":true}]',
        b'{"stream":true,"top_p":1e400}',
        b'\xef\xbb\xbf{"stream":true}',
        b'{"stream":true,"stream_options":"x"}',
        b'{"stream":true,"stream\\u005foptions":{"x":1}}',
        b'{"tools":[{"stream_options":{"a":1}}],"stream":true,"stream_options":{"x":1}}',
        b'{"stream":true,"stream_options":{"x":1},"stream_options":{"x":2}}',
    ],
)
def test_what_cannot_be_changed_in_one_place_is_not_changed(body: bytes) -> None:
    with pytest.raises(NotUnderstood):
        ask(body)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["stream", "stream_options", "a", "}"]), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["stream", "stream_options", "model", '"stream":true']), VALUES), st.sampled_from([None, 1]))
def test_what_is_changed_says_the_same_and_asks_for_usage(asked: dict[str, Any], indent: int | None) -> None:
    asked["stream"] = True
    options = asked.get("stream_options")
    try:
        changed = ask(json.dumps(asked, indent=indent).encode())
    except NotUnderstood:
        return
    if changed is None:
        assert "include_usage" in options
    else:
        assert json.loads(changed) == {**asked, "stream_options": {**(options or {}), "include_usage": True}}


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_are_left_alone_or_not_understood(before: bytes, after: bytes) -> None:
    try:
        changed = ask(before + b'"stream":true' + after)
    except NotUnderstood:
        return
    assert changed is None or json.loads(changed)["stream_options"]["include_usage"] is True


def event(data: bytes, end: bytes = b"\n") -> bytes:
    return b"data: " + data + end + end


def shown(*pieces: bytes) -> tuple[bytes, int]:
    kept = Filter()
    out = b"".join([kept.feed(piece) for piece in pieces]) + kept.close()
    return out, kept.withheld_bytes


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_chunk_with_the_usage_is_left_out(end: bytes) -> None:
    before, usage, after = event(FILTERED, end) + event(TEXT, end), event(USAGE, end), event(b"[DONE]", end)
    assert shown(before + usage + after) == (before + after, len(usage))


@pytest.mark.parametrize("data", [TEXT, FILTERED, b"[DONE]", b'{"choices":[],"usage":null}', b'{"choices": []', LARGE])
def test_every_other_event_stays(data: bytes) -> None:
    whole = event(data) + event(TEXT)
    assert shown(whole) == (whole, 0)


def test_a_usage_that_no_blank_line_ends_is_left_out_at_the_end() -> None:
    assert shown(event(TEXT), b"data: " + USAGE) == (event(TEXT), len(USAGE) + 6)


def test_whole_events_comments_and_blank_lines_are_not_held_back() -> None:
    kept = Filter()
    for piece in (event(TEXT), b": ping\n", b"\n", b"\r\n", b": ping\n\n", event(TEXT) * 3):
        assert kept.feed(piece) == piece


def test_a_large_event_is_not_held_back_to_its_end() -> None:
    kept, piece = Filter(), b"data: " + b"x" * EVENT_BYTES_MAX
    assert kept.feed(piece) == piece
    assert kept.feed(b"y" * 10) == b"y" * 10
    assert kept.feed(b"\n") == b""
    assert kept.feed(b"\n" + event(USAGE)) == b"\n\n"


PIECES = st.sampled_from(
    [
        *(event(data, end) for data in (TEXT, USAGE, FILTERED) for end in (b"\n", b"\r\n", b"\r")),
        b"event: x\r\n" + event(USAGE), b"data: {}\n" + event(USAGE), event(LARGE), event(LARGE, b"\r\n"), event(LARGE, b"\r"),
        b":" + b"x" * EVENT_BYTES_MAX + b"\n", b":" + b"x" * EVENT_BYTES_MAX + b"\r",
        b": ping\n", b":\r\n\r\n", b": p\r", b"\n", b"\r", b"\r\n", b"data: " + USAGE, b"data:x\n", event(b"[DONE]"),
    ]
)  # fmt: skip


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_large_comment_is_not_held_back_and_does_not_hide_the_usage_behind_it(end: bytes) -> None:
    kept, comment = Filter(), b":" + b"x" * EVENT_BYTES_MAX
    assert kept.feed(comment) == comment
    assert kept.feed(b"y" * 9) == b"y" * 9
    assert kept.feed(end + event(USAGE) + event(TEXT)) == end + event(TEXT)


@given(st.lists(PIECES, max_size=8), st.data())
def test_any_split_shows_the_same(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    split = [whole[at:to] for at, to in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert shown(*split) == shown(whole)


@given(st.lists(PIECES, max_size=4))
def test_byte_by_byte_shows_the_same(pieces: list[bytes]) -> None:
    whole = b"".join(piece for piece in pieces if len(piece) < 1000)
    assert shown(*(whole[at : at + 1] for at in range(len(whole)))) == shown(whole)
