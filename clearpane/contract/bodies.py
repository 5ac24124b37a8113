"""Bodies: content-encodings undone within bounds, and bytes as the text a JSON record can hold. Pure."""

import sys
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import brotli  # type: ignore[import-untyped]

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LAYERS_MAX = 2
# A ratio says nothing of a small body: 40 bytes of gzip may honestly be 5,000 of JSON.
_RATIO_FREE_BYTES = 64 << 10
_WIRE_PIECE = 64 << 10
_DATA_PIECE = 256 << 10
# RFC 9659: a receiver need not hold a larger window, and memory is bounded by it.
_ZSTD_WINDOW_LOG_MAX = 23
_ZSTD_LEVEL = 3

TOO_LARGE = "too large"
TRUNCATED = "truncated"
DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Decoded:
    """What could be decoded, and why that is not all."""

    data: bytes
    error: str | None


def decode(wire: bytes, content_encoding: str | None, *, bytes_max: int, ratio_max: int, complete: bool) -> Decoded:
    """Undo a content-encoding: gzip, deflate, br, zstd, identity, or two of them.

    At most `bytes_max` bytes come out, and at most `ratio_max` times the wire's (above 64 KiB). Whatever was decoded
    before an error is returned with it. `complete=False`: the wire is known to be cut, which is then no error.
    An encoding that is not known leaves the wire as it is.
    """
    names = [name for part in (content_encoding or "").lower().split(",") if (name := part.strip()) not in {"", "identity"}]
    unknown = next((name for name in names if name not in _ENCODINGS), None)
    if unknown is not None or len(names) > _LAYERS_MAX:
        return Decoded(wire, f"unknown encoding {unknown[:40]}" if unknown else "too many encodings")
    room = min(bytes_max, max(len(wire) * ratio_max, _RATIO_FREE_BYTES))
    data, error = wire, None
    for name in reversed(names):
        data, layer_error = _undo(data, name, room)
        error = error or layer_error
    if not names and len(data) > bytes_max:
        return Decoded(data[:bytes_max], TOO_LARGE)
    return Decoded(data, None if error == TRUNCATED and not complete else error)


def decoded_sizes(wire: bytes, content_encoding: str, offsets: Iterable[int], *, bytes_max: int) -> list[int]:
    """How many bytes the first so many of the wire decode to: what a reader could have at that time.

    Of one encoding and its first member or frame. The list ends early where that does, at damage, and behind `bytes_max`.
    """
    start, _ = _ENCODINGS.get(content_encoding.strip().lower(), (None, False))
    if start is None:
        return []
    view, found, have, at = memoryview(wire), list[int](), 0, 0
    decoder = start(view)
    try:
        for offset in offsets:
            for piece in decoder.pieces(view[at:offset]) if offset > at else ():
                have += len(piece)
                if have > bytes_max:
                    return found
            at = max(at, offset)
            found.append(have)
            if decoder.ended:
                break
    except (EOFError, zlib.error, zstd.ZstdError, brotli.error):
        pass
    return found


def as_text(data: bytes, *, complete: bool = True) -> tuple[str, Literal["utf-8", "base64"]]:
    """The bytes as a JSON string can hold them. `complete=False`: a character cut at the end is left out."""
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        if not complete and error.reason == "unexpected end of data":
            return data[: error.start].decode("utf-8"), "utf-8"
        return as_base64(data)


def as_base64(data: bytes) -> tuple[str, Literal["base64"]]:
    return b64encode(data).decode("ascii"), "base64"


def compress(data: bytes) -> bytes:
    """One zstd frame: the content-encoding of our own POSTs."""
    return zstd.compress(data, level=_ZSTD_LEVEL)


def _undo(wire: bytes, name: str, room: int) -> tuple[bytes, str | None]:
    start, many = _ENCODINGS[name]
    out: list[bytes] = []
    have = 0
    try:
        for piece in _pieces(memoryview(wire), start, many):
            out.append(piece)
            have += len(piece)
            if have > room:
                return b"".join(out)[:room], TOO_LARGE
    except EOFError:
        return b"".join(out), TRUNCATED
    except (zlib.error, zstd.ZstdError, brotli.error):
        return b"".join(out), DAMAGED
    return b"".join(out), None


class _Decoder(Protocol):
    """One gzip member, zstd frame, or whole stream. `pieces` feeds it and gives what comes out, lazily."""

    def pieces(self, wire: memoryview) -> Iterator[bytes]: ...
    @property
    def ended(self) -> bool: ...
    @property
    def unused(self) -> int: ...


def _pieces(wire: memoryview, start: Callable[[memoryview], _Decoder], many: bool) -> Iterator[bytes]:
    """Raises EOFError if the wire ends too early."""
    at = 0
    while at < len(wire):
        decoder = start(wire[at:])
        while not decoder.ended:
            if at == len(wire):
                raise EOFError
            fed = wire[at : at + _WIRE_PIECE]
            at += len(fed)
            yield from decoder.pieces(fed)
        at -= decoder.unused
        if not many and at < len(wire):
            raise zlib.error("bytes behind the end")


class _Zlib:
    def __init__(self, wbits: int) -> None:
        self._inner = zlib.decompressobj(wbits)

    def pieces(self, wire: memoryview) -> Iterator[bytes]:
        out = self._inner.decompress(wire, _DATA_PIECE)
        while out:
            yield out
            out = self._inner.decompress(self._inner.unconsumed_tail, _DATA_PIECE)

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def unused(self) -> int:
        return len(self._inner.unused_data)


class _Zstd:
    def __init__(self) -> None:
        self._inner = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG_MAX})

    def pieces(self, wire: memoryview) -> Iterator[bytes]:
        out = self._inner.decompress(wire, _DATA_PIECE)
        while out:
            yield out
            out = b"" if self._inner.eof else self._inner.decompress(b"", _DATA_PIECE)

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def unused(self) -> int:
        return len(self._inner.unused_data)


class _Brotli:
    unused = 0

    def __init__(self) -> None:
        self._inner = brotli.Decompressor()

    def pieces(self, wire: memoryview) -> Iterator[bytes]:
        out = self._inner.process(bytes(wire), output_buffer_limit=_DATA_PIECE)
        while out:
            yield out
            out = b"" if self.ended else self._inner.process(b"", output_buffer_limit=_DATA_PIECE)

    @property
    def ended(self) -> bool:
        return bool(self._inner.is_finished())


def _deflate(wire: memoryview) -> _Decoder:
    """RFC 9110 means the zlib form; old servers send it raw."""
    zlib_form = len(wire) > 1 and wire[0] & 0x0F == 8 and (wire[0] << 8 | wire[1]) % 31 == 0
    return _Zlib(zlib.MAX_WBITS if zlib_form else -zlib.MAX_WBITS)


# How each begins, and whether several may follow one another.
_ENCODINGS: dict[str, tuple[Callable[[memoryview], _Decoder], bool]] = {
    "gzip": (lambda wire: _Zlib(16 + zlib.MAX_WBITS), True),
    "x-gzip": (lambda wire: _Zlib(16 + zlib.MAX_WBITS), True),
    "deflate": (_deflate, False),
    "br": (lambda wire: _Brotli(), False),
    "zstd": (lambda wire: _Zstd(), True),
}
