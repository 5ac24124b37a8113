"""One terminal line per finished call: time, model, status, tokens, cost, latency."""

from datetime import datetime
from typing import Any, TextIO

_RED, _YELLOW, _DIM, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


class Line:
    """Writes to a terminal, or to a pipe without colours. Unknown is `?`, never 0."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._colours = out.isatty()

    def __call__(self, row: dict[str, Any]) -> None:
        print(self._text(row), file=self._out, flush=True)

    def _text(self, row: dict[str, Any]) -> str:
        status, end = row.get("status"), row.get("end")
        shown = str(status or "-") if end == "complete" else f"{status or '-'} {end}"
        colour = "" if end == "complete" and (status or 0) < 400 else _YELLOW if (status or 500) < 500 else _RED
        return "  ".join(
            (
                self._dye(_DIM, _local_time(row.get("received_at"))),
                f"{_printable(row.get('model') or row.get('operation') or '?', 28):<28}",
                self._dye(colour, f"{shown:<8}"),
                f"{_tokens(row, _INPUT):>8} in {_tokens(row, _OUTPUT):>7} out",
                f"{_cost(row.get('cost_total')):>11}",
                f"{_seconds(row.get('duration_ms')):>8}",
                self._dye(_DIM, _printable(row.get("user_id") or "", 20)),
            )
        ).rstrip()

    def _dye(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colours and colour else text


_INPUT = ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "input_audio_tokens", "input_image_tokens")
_OUTPUT = ("output_tokens", "reasoning_tokens", "output_audio_tokens")


def _tokens(row: dict[str, Any], leaves: tuple[str, ...]) -> str:
    known = [row[leaf] for leaf in leaves if row.get(leaf) is not None]
    if not known:
        return "?"
    return f"{'~' if row.get('usage_source') == 'estimated' else ''}{sum(known)}"


def _cost(cost: object) -> str:
    return "$?" if cost is None else f"${float(str(cost)):.6f}"


def _seconds(duration_ms: float | None) -> str:
    return "?" if duration_ms is None else f"{duration_ms / 1000:.2f} s"


def _local_time(received_at: object) -> str:
    try:
        return f"{datetime.fromisoformat(str(received_at)).astimezone():%H:%M:%S}"
    except ValueError:
        return "--:--:--"


def _printable(text: str, width: int) -> str:
    """A model's or user's name may hold anything, terminal escapes included."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    return plain if len(plain) <= width else plain[: width - 1] + "…"
