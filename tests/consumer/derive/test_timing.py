"""Time to first token and tokens per second, from the proxy's marks."""

import json
import zlib
from typing import Any

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from clearpane.contract.bodies import decoded_sizes
from consumer.derive import PriceBook, derive
from consumer.derive.timing import first_token_ms, tokens_per_second
from tests.consumer.derive.shipped import shipped

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


def flushed_gzip(pieces: list[bytes]) -> list[bytes]:
    packer = zlib.compressobj(wbits=31)
    return [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces] + [packer.flush()]


def flushed_deflate(pieces: list[bytes]) -> list[bytes]:
    packer = zlib.compressobj()
    return [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces] + [packer.flush()]


def flushed_brotli(pieces: list[bytes]) -> list[bytes]:
    packer = brotli.Compressor()
    return [packer.process(piece) + packer.flush() for piece in pieces] + [packer.finish()]


def flushed_zstd(pieces: list[bytes]) -> list[bytes]:
    packer = zstd.ZstdCompressor()
    return [packer.compress(piece, packer.FLUSH_BLOCK) for piece in pieces] + [packer.flush()]


@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", flushed_gzip), ("deflate", flushed_deflate), ("br", flushed_brotli), ("zstd", flushed_zstd)]
)
def test_a_compressed_stream_has_its_first_token_when_its_bytes_came(coding: str, pack: Any, make: Any, book: PriceBook) -> None:
    """The server flushes at each event: what had come by 40 ms decodes to the first word and no more."""
    texts = [": ping\n\n", chunk(role="assistant", content=""), chunk(content="Hello"), chunk(content=" world, hello")]
    pieces = pack([text.encode() for text in texts])
    wire = b"".join(pieces)
    ends = [len(b"".join(pieces[: number + 1])) for number in range(len(pieces))]
    marks = [[at_ms, end] for at_ms, end in zip([5.0, 7.0, 40.0, 50.0, 50.0], ends, strict=True)]
    envelope = make("", timing={"chunk_marks": marks, "last_byte_ms": 50.0}, content_encoding=coding)
    envelope["response"]["streamed"] = True
    sent = shipped(envelope, answer=wire)
    assert [size for _, size in sent["timing"]["decoded_marks"]][:4] == [len("".join(texts[: n + 1])) for n in range(4)]
    derived = derive(sent, book)
    assert (derived["first_token_ms"], derived["tokens_per_second"]) == (40.0, 300.0)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, br", "unheard-of"])
@given(wire=st.binary(max_size=200), offsets=st.lists(st.integers(0, 300), max_size=8).map(sorted))
def test_any_bytes_in_any_encoding_have_sizes_or_none(coding: str, wire: bytes, offsets: list[int]) -> None:
    sizes = decoded_sizes(wire, coding, offsets, bytes_max=1000)
    assert sizes == sorted(sizes)
    assert len(sizes) <= len(offsets)


def test_a_bomb_has_no_sizes_beyond_the_bound() -> None:
    wire = zlib.compress(b"\0" * (8 << 20))
    assert all(size <= 1 << 20 for size in decoded_sizes(wire, "deflate", [10, len(wire)], bytes_max=1 << 20))


def test_plain_json_and_streams_without_marks_have_no_first_token(make: Any, book: PriceBook) -> None:
    timing = {"chunk_marks": [[7.0, 10_000]], "last_byte_ms": 9.0}
    plain = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
    assert derive(make(plain, timing=timing), book)["first_token_ms"] is None
    assert derive(make(chunk(content="Hi"), timing=timing, content_encoding="gzip"), book)["first_token_ms"] is None
