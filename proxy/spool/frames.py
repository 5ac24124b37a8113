"""Frames: what one append to the spool looks like in bytes. Pure; the only importer of google_crc32c.

    u32 length | u32 crc32c | u8 type | u64 sequence | payload          (little endian; length is the payload's)

The checksum covers type, sequence and payload, and begins from the spool's id. So bytes that a caller put
into a body never pass for a frame when a damaged segment is searched, nor does a segment of another spool.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import google_crc32c
import orjson

_HEAD = struct.Struct("<IIBQ")
_CHECKED = struct.Struct("<BQ")
_LENGTH = struct.Struct("<I")
HEAD_BYTES = _HEAD.size
# What stands between the head and the checked part: length and checksum themselves.
_UNCHECKED_BYTES = HEAD_BYTES - _CHECKED.size
# Far above any capture; it keeps a damaged length from being believed.
PAYLOAD_BYTES_MAX = 256 << 20
SEQUENCE_MAX = (1 << 48) - 1


class FrameType(IntEnum):
    ADMITTED = 1
    STARTED = 2
    COMPLETED = 3
    GAP = 4


# The type, and behind it a sequence whose two highest bytes are zero: where a frame can be at all.
_CANDIDATE = re.compile(rb"[\x01-\x04](?=.{6}\x00\x00)", re.DOTALL)


class SpoolDamaged(Exception):
    """Bytes of the spool that are not what the writer wrote."""


@dataclass(frozen=True, slots=True)
class Frame:
    """`segment` is the name of the segment as a number, `end` the byte offset behind the frame."""

    type: FrameType
    sequence: int
    payload: memoryview
    segment: int
    end: int


@dataclass(frozen=True, slots=True)
class Head:
    length: int
    checksum: int
    type: int
    sequence: int

    @property
    def frame_bytes(self) -> int:
        return HEAD_BYTES + self.length

    @property
    def plausible(self) -> bool:
        return self.length <= PAYLOAD_BYTES_MAX and 1 <= self.type <= 4 and self.sequence <= SEQUENCE_MAX


def seed_of(spool_id: str) -> int:
    return int(google_crc32c.value(spool_id.encode()))


def encode(seed: int, kind: int, sequence: int, payload: tuple[bytes, ...]) -> list[bytes]:
    """The frame as buffers for one writev; large parts of the payload are not copied."""
    checked = _CHECKED.pack(kind, sequence)
    checksum = google_crc32c.extend(seed, checked)
    for part in payload:
        checksum = google_crc32c.extend(checksum, part)
    return [_HEAD.pack(sum(map(len, payload)), checksum, kind, sequence), *payload]


def completed_payload(facts: bytes, request: bytes, response: bytes) -> tuple[bytes, ...]:
    """`u32 length | bytes` three times: facts (JSON), request body, response body."""
    return (
        _LENGTH.pack(len(facts)) + facts + _LENGTH.pack(len(request)),
        request,
        _LENGTH.pack(len(response)),
        response,
    )


def split_completed(payload: bytes | memoryview) -> tuple[dict[str, Any], bytes, bytes]:
    """Facts, request bytes and response bytes of a COMPLETED frame. Raises SpoolDamaged."""
    facts, request, response = _split_parts(memoryview(payload))
    try:
        decoded = orjson.loads(facts)
    except orjson.JSONDecodeError:
        raise SpoolDamaged("the facts of a record are not JSON") from None
    if not isinstance(decoded, dict):
        raise SpoolDamaged("the facts of a record are not an object")
    return decoded, bytes(request), bytes(response)


def _split_parts(payload: memoryview) -> list[memoryview]:
    parts, at = [], 0
    for _ in range(3):
        if at + _LENGTH.size > len(payload):
            raise SpoolDamaged("a record ends before its parts do")
        (length,) = _LENGTH.unpack_from(payload, at)
        at += _LENGTH.size
        parts.append(payload[at : at + length])
        at += length
    if at != len(payload):
        raise SpoolDamaged("the parts of a record are not as long as the record")
    return parts


def head_at(data: bytes, offset: int = 0) -> Head | None:
    """The head that stands at `offset`; None when it is not all there, or can't be one of ours."""
    if len(data) - offset < HEAD_BYTES:
        return None
    head = Head(*_HEAD.unpack_from(data, offset))
    return head if head.plausible else None


def checked_payload(seed: int, head: Head, data: bytes, offset: int) -> memoryview | None:
    """The payload of the frame at `offset`; None when it is not all there, or the checksum speaks against it."""
    checked = data[offset + _UNCHECKED_BYTES : offset + head.frame_bytes]
    whole = len(checked) == head.frame_bytes - _UNCHECKED_BYTES
    if not whole or google_crc32c.extend(seed, checked) != head.checksum:
        return None
    return memoryview(checked)[_CHECKED.size :]


def candidates(data: bytes) -> Iterator[int]:
    """Offsets in `data` at which a frame may begin: to be proved by its checksum."""
    for found in _CANDIDATE.finditer(data, _UNCHECKED_BYTES):
        yield found.start() - _UNCHECKED_BYTES
