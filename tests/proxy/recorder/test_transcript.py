"""What a record says of a WebSocket: one JSON line per message, bounded, without the caller's key."""

import base64
import zlib
from typing import Any

import orjson
import pytest

from proxy.recorder import transcript as transcripts
from proxy.recorder.transcript import deflated, transcript

KEY = b"sk-a-key-of-the-caller-0123456789"


def frame(first: int, payload: bytes) -> bytes:
    return bytes([first, len(payload)]) + payload


def lines_of(data: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in data.splitlines()]


def test_each_message_is_a_line_at_the_time_of_its_last_byte() -> None:
    pieces = [frame(0x81, b'{"a":1}') + b"\x82", b"\x02\x00\xff", frame(0x89, b"ping"), frame(0x88, b"\x03\xe9over")]
    found = transcript(pieces, [1.0, 2.00049, 3.0, 4.5], deflated=False, known=())
    assert lines_of(found.lines) == [
        {"at_ms": 1.0, "type": "text", "data": '{"a":1}'},
        {"at_ms": 2.0, "type": "binary", "data": base64.b64encode(b"\0\xff").decode()},
        {"at_ms": 4.5, "type": "close", "code": 1001, "data": "over"},
    ]
    assert (found.cut, found.redactions) == (False, 0)


def test_a_close_without_a_code_has_none() -> None:
    assert lines_of(transcript([frame(0x88, b"")], [1.0], deflated=False, known=()).lines) == [
        {"at_ms": 1.0, "type": "close", "code": None, "data": ""}
    ]


def test_the_callers_key_is_in_no_line_binary_or_not() -> None:
    found = transcript([frame(0x81, b"a " + KEY), frame(0x82, b"b " + KEY)], [1.0, 2.0], deflated=False, known=(KEY,))
    text, binary = lines_of(found.lines)
    assert (text["data"], base64.b64decode(binary["data"]), found.redactions) == ("a [redacted]", b"b [redacted]", 2)


def test_compression_that_was_agreed_on_is_undone() -> None:
    packer = zlib.compressobj(wbits=-15)
    packed = [(packer.compress(b"the same again") + packer.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(2)]
    found = transcript([frame(0xC1, data) for data in packed], [1.0, 2.0], deflated=True, known=())
    assert [line["data"] for line in lines_of(found.lines)] == ["the same again"] * 2


def test_what_cannot_be_read_ends_the_transcript_and_says_why() -> None:
    found = transcript([frame(0x81, b"a") + frame(0x83, b"b"), frame(0x81, b"c")], [1.0, 2.0], deflated=False, known=())
    first, last = lines_of(found.lines)
    assert (first["data"], last["type"], found.cut) == ("a", "unreadable", True)
    assert "reserved" in last["data"]


@pytest.mark.parametrize(("bound", "value"), [("LINES_MAX", 3), ("LINES_BYTES_MAX", 150)])
def test_a_transcript_is_bounded(bound: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, bound, value)
    found = transcript([frame(0x81, b"0123456789") * 100], [1.0], deflated=False, known=())
    assert (len(lines_of(found.lines)), found.cut) == (3, True)


def test_text_that_is_no_utf8_does_not_break_the_record() -> None:
    (line,) = lines_of(transcript([frame(0x81, b"a\xff")], [1.0], deflated=False, known=()).lines)
    assert line["data"] == "a�"


@pytest.mark.parametrize(
    ("head", "is_deflated"),
    [
        (b"\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n", True),
        (b"\r\nsec-websocket-extensions: Permessage-Deflate\r\n", True),
        (b"\r\nSec-WebSocket-Extensions: x-webkit-deflate-frame\r\nX: permessage-deflate\r\n", False),
        (b"\r\n", False),
    ],
)
def test_the_head_says_whether_there_is_compression(head: bytes, is_deflated: bool) -> None:
    assert deflated(head) == is_deflated
