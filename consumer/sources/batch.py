"""The body of a POST -> the messages of a spool's HTTP log. Pure; every bound is checked before it is spent."""

import sys
from datetime import datetime

from clearpane.contract.envelope import Envelope
from consumer.lake.messages import Candidate, NotAnEnvelope, parse

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class BadBatch(Exception):
    """What is wrong, and in which line."""


class TooLarge(Exception):
    """More bytes than the intake takes."""


def unpack(body: bytes, encoding: str | None, bytes_max: int) -> bytes:
    """The JSON lines. Raises BadBatch or TooLarge."""
    if encoding in (None, "", "identity"):
        plain = body
    elif encoding == "zstd":
        plain = _decompress(body, bytes_max)
    else:
        raise BadBatch("Content-Encoding is neither zstd nor identity")
    if len(plain) > bytes_max:
        raise TooLarge(f"more than {bytes_max} bytes of records in one POST")
    return plain


def _decompress(body: bytes, bytes_max: int) -> bytes:
    parts, size = [], 0
    while body:
        frame = zstd.ZstdDecompressor()
        try:
            part = frame.decompress(body, bytes_max + 1 - size)
        except zstd.ZstdError as error:
            raise BadBatch("the body is not zstd") from error
        size += len(part)
        parts.append(part)
        if size > bytes_max:
            raise TooLarge(f"more than {bytes_max} bytes of records in one POST")
        if not frame.eof:
            raise BadBatch("the zstd body is cut")
        body = frame.unused_data
    return b"".join(parts)


def candidates(lines: bytes, source: str, first: int) -> list[Candidate]:
    """One per line, the k-th at offset `first` + k. Raises BadBatch with the number of the line."""
    found = []
    for number, line in enumerate(lines.removesuffix(b"\n").split(b"\n")):
        try:
            found.append(_candidate(line, source, first + number))
        except NotAnEnvelope as error:
            raise BadBatch(f"line {number + 1}: {error}") from error
    return found


def _candidate(line: bytes, source: str, offset: int) -> Candidate:
    envelope = parse(line)
    if envelope["event"] != "completed":
        raise NotAnEnvelope("event is not completed")
    if envelope.get("source") != source:
        raise NotAnEnvelope("source is not the spool of the path")
    return Candidate(
        offset=offset,
        timestamp_ms=_received_ms(envelope),
        size=len(line),
        request_id=envelope["request_id"],
        attempt=envelope["attempt"],
        envelope=envelope,
    )


def _received_ms(envelope: Envelope) -> int:
    timing = envelope.get("timing")
    stated = timing.get("received_at") if isinstance(timing, dict) else None
    try:
        moment = datetime.fromisoformat(stated or "")
        milliseconds = int(moment.timestamp() * 1000)
    except (TypeError, ValueError, OverflowError) as error:
        raise NotAnEnvelope("timing.received_at is not a time") from error
    if moment.tzinfo is None or milliseconds < 0:
        raise NotAnEnvelope("timing.received_at is not a time in UTC")
    return milliseconds
