"""When the answer's content came: from the marks that the proxy took of the first chunks."""

from typing import Any

from consumer.derive.untrusted import Mapping, items, mapping


def first_token_ms(timing: Mapping, content_end: int | None, *, compressed: bool = False) -> float | None:
    """Offset (ms) of the first mark at which the body held `content_end` bytes; null when the marks end before it.

    Of a compressed body: at which what had come decoded to so many bytes.
    """
    if content_end is None:
        return None
    for mark in items(timing.get("decoded_marks" if compressed else "chunk_marks")):
        if isinstance(mark, list) and len(mark) == 2 and isinstance(mark[1], int) and mark[1] >= content_end:
            return _number(mark[0])
    return None


def tokens_per_second(timing: Mapping, first_ms: float | None, output_tokens: int | None) -> float | None:
    """Output tokens after the first, over the time from the first token to the last byte. Streams only."""
    last = _number(mapping(timing).get("last_byte_ms"))
    if first_ms is None or last is None or output_tokens is None or output_tokens < 2 or last <= first_ms:
        return None
    return round((output_tokens - 1) / (last - first_ms) * 1000, 3)


def _number(value: Any) -> float | None:
    """Finite and not negative; the envelope is ours, but a record is built from any."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e15 else None
