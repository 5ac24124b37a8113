"""How a body is cut into documents: JSON lines, forms, a WebSocket's messages."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearpane.contract import multipart
from consumer.derive import documents
from consumer.derive.documents import Body

VALUES = st.dictionaries(st.text(max_size=4), st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8), max_size=3)


def parsed(data: bytes, *, cut: bool = False) -> Body:
    body = Body(data, cut)
    documents.parse(body)
    return body


@given(st.lists(VALUES, min_size=2, max_size=6), st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_json_lines_come_out_as_they_went_in(values: list[Any], end: str) -> None:
    data = end.join(json.dumps(value) for value in values).encode()
    body = parsed(data)
    assert [each.value for each in body.documents] == values
    assert body.streamed
    for each in body.documents:  # an offset is where the line ends
        line = data[: each.end].decode().rstrip("\r\n").rpartition("\n")[2]
        assert json.loads(line) == each.value


@given(st.lists(VALUES, min_size=2, max_size=6), st.data())
def test_lines_cut_anywhere_lose_only_the_last(values: list[Any], data: st.DataObject) -> None:
    whole = "\n".join(json.dumps(value) for value in values).encode()
    first = len(json.dumps(values[0])) + 1
    at = data.draw(st.integers(first, len(whole)))
    body = parsed(whole[:at], cut=True)
    found = [each.value for each in body.documents]
    assert body.error is None
    assert found == values[: len(found)]
    assert len(found) >= whole[:at].count(b"\n")


def test_a_bad_line_is_named_and_hides_no_other() -> None:
    body = parsed(b'{"a": 1}\n{oops\n{"a": 2}\n')
    assert [each.value for each in body.documents] == [{"a": 1}, {"a": 2}]
    assert str(body.error).startswith("not JSON")


def test_indented_json_is_one_document_and_its_damage_one_error() -> None:
    assert [each.value for each in parsed(b'{\n "a": 1\n}\n').documents] == [{"a": 1}]
    with pytest.raises(ValueError, match="not JSON"):
        parsed(b'{\n "a": 1,\n')


def test_messages_of_a_websocket_are_taken_out_of_their_frames() -> None:
    binary = base64.b64encode(b'{"b": 2}').decode()
    audio = base64.b64encode(b"RIFF").decode()
    lines = [{"at_ms": 1.5, "type": "text", "data": '{"a": 1}'}] + [
        {"at_ms": 2, "type": "binary", "data": each} for each in (binary, audio)
    ]
    body = parsed("\n".join(json.dumps(line) for line in lines).encode())
    assert [each.value for each in body.documents] == [{"a": 1}, {"b": 2}, None]
    assert (body.socket, body.error) == (True, None)


def test_one_message_of_a_websocket_is_one_too() -> None:
    body = parsed(b'{"at_ms": 1, "type": "text", "data": "{\\"a\\": 1}"}')
    assert [each.value for each in body.documents] == [{"a": 1}]


NAMES = st.text(st.characters(codec="ascii", exclude_characters='"\r\n;[]\\', exclude_categories=["Cc"]), min_size=1, max_size=9)
FIELDS = st.dictionaries(NAMES, st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30), max_size=5)


def form(fields: dict[str, str], mark: str = "--b0und", file: bytes = b"\0\xff\r\n--b0un\r\n") -> bytes:
    parts = [f'{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    head = f'{mark}\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\nContent-Type: audio/mpeg\r\n\r\n'
    return b"".join([head.encode() + file + b"\r\n", *parts]) + f"{mark}--\r\n".encode()


@given(FIELDS)
def test_fields_of_a_form_come_out_as_they_went_in(fields: dict[str, str]) -> None:
    assert multipart.fields(form(fields)) == fields


@given(FIELDS, st.data())
def test_a_cut_form_keeps_its_whole_fields(fields: dict[str, str], data: st.DataObject) -> None:
    whole = form(fields)
    found = multipart.fields(whole[: data.draw(st.integers(0, len(whole)))])
    assert list(found.items()) == list(fields.items())[: len(found)]


@given(st.binary(max_size=200))
def test_garbage_has_no_fields_and_does_not_raise(data: bytes) -> None:
    multipart.fields(data)
    multipart.fields(b"--x\r\n" + data)


def test_a_value_that_is_too_long_is_left_out() -> None:
    assert multipart.fields(form({"prompt": "x" * (multipart.VALUE_BYTES_MAX + 1), "model": "m"})) == {"model": "m"}


def test_a_repeated_field_and_one_without_quotes() -> None:
    assert multipart.fields(form({"include[]": "logprobs"})) == {"include": "logprobs"}
    assert multipart.fields(b"--x\r\ncontent-disposition: form-data; name=model\r\n\r\nwhisper-1\r\n--x--\r\n") == {"model": "whisper-1"}
