"""The form of a `calls/` object: gzip, one member per line, behind an empty member that holds the manifest.

`gunzip` and every reader of gzip see plain JSON lines: the first member has no content, only an extra
field (RFC 1952, subfield `CP`). One record is opened by one range read of its own member.
"""

import hashlib
import struct
import zlib
from dataclasses import asdict, dataclass

import orjson

_HEADER = b"\x1f\x8b\x08"
_PLAIN = _HEADER + b"\x00" + b"\x00\x00\x00\x00" + b"\x00\xff"  # no flags, no time, unknown system
_WITH_EXTRA = _HEADER + b"\x04" + b"\x00\x00\x00\x00" + b"\x00\xff"
_SUBFIELD = b"CP"
_EMPTY_DEFLATE = b"\x03\x00" + b"\x00" * 8  # an empty final block, CRC 0, size 0
# The extra field's length is 16 bits; the manifest needs some 400 bytes.
_MANIFEST_BYTES_MAX = 65535 - 4


class NotAnObject(ValueError):
    """The bytes are not a `calls/` object of this version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an object says of itself. It covers the log's offsets [start, end)."""

    log: str
    start: int
    end: int
    count: int  # records in the object: offsets may be skipped (`started` messages, dropped copies)
    nonce: str  # the writer's: tells "mine, the answer was lost" from "another's"
    sha256: str  # of everything behind the manifest's member
    previous_sha256: str | None  # of the object that ends where this one starts; None for the first
    version: int = 1


def member(line: bytes) -> bytes:
    """One gzip member holding `line`, newline included."""
    deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflate.compress(line) + deflate.flush()
    return b"".join((_PLAIN, body, struct.pack("<II", zlib.crc32(line), len(line) & 0xFFFFFFFF)))


def digest(members: bytes) -> str:
    return hashlib.sha256(members).hexdigest()


def seal(manifest: Manifest) -> bytes:
    """The leading empty member that carries the manifest."""
    text = orjson.dumps(asdict(manifest))
    if len(text) > _MANIFEST_BYTES_MAX:
        raise ValueError("manifest too long for a gzip extra field")
    extra = _SUBFIELD + struct.pack("<H", len(text)) + text
    return b"".join((_WITH_EXTRA, struct.pack("<H", len(extra)), extra, _EMPTY_DEFLATE))


def unseal(data: bytes) -> tuple[Manifest, int]:
    """(manifest, number of bytes of its member) from an object or its first 64 KiB. Raises NotAnObject."""
    if len(data) < 16 or data[:10] != _WITH_EXTRA or data[12:14] != _SUBFIELD:
        raise NotAnObject("no manifest at the start of the object")
    (length,) = struct.unpack_from("<H", data, 14)
    end = 16 + length
    if data[end : end + len(_EMPTY_DEFLATE)] != _EMPTY_DEFLATE:
        raise NotAnObject("the manifest's member is cut or not empty")
    try:
        manifest = Manifest(**orjson.loads(data[16:end]))
    except (orjson.JSONDecodeError, TypeError) as error:
        raise NotAnObject("the manifest cannot be read") from error
    if manifest.version != 1:
        raise NotAnObject(f"object version {manifest.version} is not known here: use a newer Clearpane")
    return manifest, end + len(_EMPTY_DEFLATE)


def open_member(data: bytes) -> bytes:
    """The line in one member. Raises NotAnObject for damaged bytes."""
    try:
        return zlib.decompress(data, wbits=16 + zlib.MAX_WBITS)
    except zlib.error as error:
        raise NotAnObject("damaged gzip member") from error
