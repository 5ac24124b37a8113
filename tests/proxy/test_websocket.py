"""The frames of a WebSocket: any split of the bytes gives the same messages; garbage raises only our own error."""

import itertools
import os
import zlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.websocket import Follower, Frames, Message, Messages, NotWebSocket, Opcode

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = (int(opcode) for opcode in Opcode)


def frame(opcode: int, payload: bytes, *, fin: bool = True, mask: bytes = b"", rsv: int = 0) -> bytes:
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big") if size < 65536 else b"\x7f" + size.to_bytes(8, "big")
    first = (0x80 if fin else 0) | rsv | opcode
    if mask:
        length = bytes([length[0] | 0x80]) + length[1:]
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([first]) + length + mask + payload


def splits(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def read(pieces: list[bytes], *, deflated: bool = False) -> list[Message]:
    messages = Messages(deflated=deflated)
    return [message for piece in pieces for message in messages.feed(piece)]


PAYLOADS = st.one_of(st.binary(max_size=40), st.integers(124, 130).map(bytes), st.sampled_from([bytes(65535), os.urandom(65537)]))
MASKS = st.one_of(st.just(b""), st.binary(min_size=4, max_size=4))
CUTS = st.lists(st.integers(0, 300_000), max_size=30)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[Message]]:
    """Frames of one side with control frames anywhere, and the messages that are in them."""
    wire, messages = b"", []
    for _ in range(draw(st.integers(0, 4))):
        opcode = draw(st.sampled_from([TEXT, BINARY]))
        payload = draw(PAYLOADS)
        pieces = splits(payload, draw(st.lists(st.integers(0, 70_000), max_size=3))) or [b""]
        for number, piece in enumerate(pieces):
            wire += frame(draw(st.sampled_from([PING, PONG])), draw(st.binary(max_size=125)), mask=draw(MASKS)) * draw(st.integers(0, 1))
            last = number == len(pieces) - 1
            wire += frame(opcode if number == 0 else CONTINUATION, piece, fin=last, mask=draw(MASKS))
        messages.append(Message("text" if opcode == TEXT else "binary", payload))
    if draw(st.booleans()):
        wire += frame(CLOSE, b"\x03\xe8bye", mask=draw(MASKS))
        messages.append(Message("close", b"bye", 1000))
    return wire, messages


@settings(max_examples=50)
@given(conversations(), CUTS)
def test_any_split_gives_the_messages_that_were_sent(conversation: tuple[bytes, list[Message]], cuts: list[int]) -> None:
    wire, messages = conversation
    assert read(splits(wire, cuts)) == messages


@settings(max_examples=25)
@given(conversations())
def test_a_follower_hears_a_close_and_only_a_close(conversation: tuple[bytes, list[Message]]) -> None:
    wire, messages = conversation
    follower = Follower()
    for piece in splits(wire, list(range(min(len(wire), 200)))):
        follower.feed(piece)
    assert follower.closed == any(message.kind == "close" for message in messages)


def test_byte_by_byte_gives_the_same() -> None:
    wire = frame(TEXT, b"a" * 300, fin=False, mask=b"\1\2\3\4") + frame(PING, b"p") + frame(CONTINUATION, b"", mask=b"\5\6\7\x08")
    assert read([wire[at : at + 1] for at in range(len(wire))]) == [Message("text", b"a" * 300)]


@given(
    st.lists(st.binary(max_size=200), max_size=8), st.booleans(), st.sampled_from([b"", frame(TEXT, b"x"), frame(TEXT, b"x", fin=False)])
)
def test_garbage_raises_only_our_error(pieces: list[bytes], deflated: bool, start: bytes) -> None:
    messages, follower = Messages(deflated=deflated, message_bytes_max=10_000), Follower()
    with suppress(NotWebSocket):
        for piece in [start, *pieces]:
            follower.feed(piece)
            list(messages.feed(piece))


@given(st.lists(st.tuples(st.binary(max_size=3000), st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH])), max_size=5), CUTS)
def test_compression_is_undone_with_and_without_a_window_that_lives_on(sent: list[tuple[bytes, int]], cuts: list[int]) -> None:
    packer, wire = zlib.compressobj(wbits=-15), b""
    for payload, flush in sent:
        packed = (packer.compress(payload) + packer.flush(flush)).removesuffix(b"\0\0\xff\xff")
        middle = len(packed) // 2
        wire += frame(BINARY, packed[:middle], fin=False, rsv=0x40) + frame(CONTINUATION, packed[middle:]) + frame(TEXT, b"as it is")
    expected = [message for payload, _ in sent for message in (Message("binary", payload), Message("text", b"as it is"))]
    assert read(splits(wire, cuts), deflated=True) == expected


def test_a_sender_may_end_its_deflate_stream() -> None:
    packed = zlib.compressobj(wbits=-15)
    whole = packed.compress(b"first") + packed.flush(zlib.Z_FINISH)
    wire = frame(TEXT, whole + b"\0", rsv=0x40) * 2
    assert read([wire], deflated=True) == [Message("text", b"first")] * 2


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (frame(3, b""), "reserved opcode"),
        (frame(0xB, b""), "reserved opcode"),
        (frame(TEXT, b"", rsv=0x20), "reserved"),
        (frame(TEXT, b"", rsv=0x40), "not agreed"),
        (frame(PING, b"", fin=False), "control frame"),
        (frame(PING, b"x" * 126), "control frame"),
        (frame(CONTINUATION, b""), "has not begun"),
        (frame(TEXT, b"", fin=False) + frame(TEXT, b""), "within another"),
        (frame(CLOSE, b"\x03"), "half a status code"),
        (b"\x82\x7f" + b"\xff" * 8, "first bit"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "control frame"),
    ],
)
def test_what_is_no_frame_is_named(wire: bytes, why: str) -> None:
    with pytest.raises(NotWebSocket, match=why):
        read([frame(TEXT, b"before"), wire])


def test_messages_are_bounded_packed_or_not() -> None:
    bomb = zlib.compressobj(wbits=-15)
    packed = bomb.compress(bytes(1 << 20)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    for wire in (frame(BINARY, bytes(1001)), frame(BINARY, packed[:-4], rsv=0x40)):
        with pytest.raises(NotWebSocket, match="longer than 1000 bytes"):
            list(Messages(deflated=True, message_bytes_max=1000).feed(wire))


def test_a_follower_takes_bytes_that_are_no_frames_for_a_close() -> None:
    follower = Follower()
    follower.feed(b"\xff\x01")
    follower.feed(frame(TEXT, b"x"))
    assert follower.closed


def test_parts_say_where_a_payload_lies() -> None:
    frames = Frames()
    wire = frame(BINARY, b"abcdef", mask=b"\0\0\0\0")
    parts = [(part.at, part.last, piece[part.start : part.stop]) for piece in (wire[:8], wire[8:]) for part in frames.feed(piece)]
    assert parts == [(0, False, b"ab"), (2, True, b"cdef")]
