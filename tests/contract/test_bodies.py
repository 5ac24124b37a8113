"""Bodies: every encoding back and forth, cut anywhere, damaged anyhow, and never more than the bound."""

import base64
import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from clearpane.contract import bodies
from clearpane.contract.bodies import Decoded

MIB = 1 << 20


def raw_deflate(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(data) + deflate.flush()


ENCODE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZIP", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw": ("deflate", raw_deflate),
    "br": ("br", lambda data: brotli.compress(data, quality=4)),
    "zstd": ("zstd", zstd.compress),
    "ours": ("zstd", bodies.compress),
}


def undo(wire: bytes, encoding: str | None, complete: bool = True, bytes_max: int = MIB, ratio_max: int = 1000) -> Decoded:
    return bodies.decode(wire, encoding, bytes_max=bytes_max, ratio_max=ratio_max, complete=complete)


@pytest.mark.parametrize("form", ENCODE)
@given(data=st.binary(max_size=3000), times=st.integers(1, 200))
def test_what_was_encoded_comes_back(form: str, data: bytes, times: int) -> None:
    name, encode = ENCODE[form]
    assert undo(encode(data * times), name) == Decoded(data * times, None)


@pytest.mark.parametrize("form", ENCODE)
@given(data=st.binary(min_size=1, max_size=2000), cut=st.floats(0, 1, exclude_max=True))
def test_a_cut_wire_gives_a_beginning(form: str, data: bytes, cut: float) -> None:
    name, encode = ENCODE[form]
    whole = encode(data)
    wire = whole[: int(len(whole) * cut)]
    known, unknown = undo(wire, name, complete=False), undo(wire, name)
    assert data.startswith(known.data)
    assert known.error is None
    assert unknown == Decoded(known.data, bodies.TRUNCATED if wire else None)


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd", "gzip, br", "zstd,gzip", None])
@given(wire=st.binary(max_size=500), complete=st.booleans())
def test_garbage_raises_nothing(name: str | None, wire: bytes, complete: bool) -> None:
    for magic in (b"", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff", b"\x28\xb5\x2f\xfd", b"\x78\x9c"):
        assert len(undo(magic + wire, name, complete, bytes_max=1000).data) <= 1000


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_members_one_after_another(name: str) -> None:
    _, encode = ENCODE[name]
    assert undo(b"".join(encode(b"part %d;" % n) for n in range(500)), name).data == b"".join(b"part %d;" % n for n in range(500))


def test_bytes_behind_the_end_are_told() -> None:
    assert undo(gzip.compress(b"all") + b"junk", "gzip") == Decoded(b"all", bodies.DAMAGED)
    assert undo(zlib.compress(b"all") + b"junk", "deflate") == Decoded(b"all", bodies.DAMAGED)
    assert undo(brotli.compress(b"all") + b"junk", "br").error == bodies.DAMAGED


@pytest.mark.parametrize("form", ENCODE)
def test_a_bomb_stops_at_the_bound(form: str) -> None:
    name, encode = ENCODE[form]
    bomb = encode(b"\0" * (64 * MIB))
    tracemalloc.start()
    decoded = undo(bomb, name, bytes_max=2 * MIB, ratio_max=10**9)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(decoded.data), decoded.error) == (2 * MIB, bodies.TOO_LARGE)
    assert peak < 16 * MIB


def test_the_ratio_bounds_what_the_size_would_allow() -> None:
    bomb = gzip.compress(b"\0" * (8 * MIB))
    decoded = undo(bomb, "gzip", bytes_max=64 * MIB, ratio_max=100)
    assert (len(decoded.data), decoded.error) == (100 * len(bomb), bodies.TOO_LARGE)
    small = gzip.compress(b"\0" * 50_000)
    assert undo(small, "gzip", ratio_max=2) == Decoded(b"\0" * 50_000, None)


def test_a_bomb_in_a_bomb_is_bounded_at_each_layer() -> None:
    nested = gzip.compress(gzip.compress(b"\0" * (64 * MIB)))
    decoded = undo(nested, "gzip, gzip", ratio_max=10**9)
    assert (len(decoded.data), decoded.error) == (MIB, bodies.TOO_LARGE)


def test_two_layers_are_undone_from_the_outside() -> None:
    wire = brotli.compress(gzip.compress(b"twice"))
    assert undo(wire, "gzip, identity, BR") == Decoded(b"twice", None)
    assert undo(wire, "gzip, br, br") == Decoded(wire, "too many encodings")


def test_unknown_and_absent_encodings_leave_the_wire() -> None:
    assert undo(b"data", "lz77") == Decoded(b"data", "unknown encoding lz77")
    for none in (None, "", "identity", " identity , "):
        assert undo(b"data", none) == Decoded(b"data", None)
    assert undo(b"data", None, bytes_max=2) == Decoded(b"da", bodies.TOO_LARGE)


def test_a_lying_encoding_is_told_and_loses_nothing() -> None:
    assert undo(b'{"plain": "json"}', "gzip") == Decoded(b"", bodies.DAMAGED)


def test_a_zstd_window_that_wants_much_memory_is_refused() -> None:
    greedy = zstd.compress(
        b"x" * (32 * MIB), options={zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    )
    assert undo(greedy, "zstd").error == bodies.DAMAGED


@given(text=st.text(max_size=200))
def test_text_stays_text(text: str) -> None:
    assert bodies.as_text(text.encode("utf-8", "ignore")) == (text.encode("utf-8", "ignore").decode(), "utf-8")


@given(data=st.binary(max_size=200), complete=st.booleans())
def test_any_bytes_become_text(data: bytes, complete: bool) -> None:
    text, encoding = bodies.as_text(data, complete=complete)
    text.encode("utf-8")
    if encoding == "base64":
        assert base64.b64decode(text) == data
    elif complete:
        assert text.encode() == data
    else:
        assert data.startswith(text.encode())
        assert len(data) - len(text.encode()) <= 3


def test_a_character_cut_by_the_capture_does_not_cost_the_text() -> None:
    assert bodies.as_text("naïve ✓".encode()[:-1], complete=False) == ("naïve ", "utf-8")
    assert bodies.as_text("naïve ✓".encode()[:-1])[1] == "base64"
