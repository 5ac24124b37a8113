"""Rows as an aligned table that fits a terminal."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from decimal import Decimal
from typing import Any

from clearpane.contract.records import Row
from reader.lines import plain

UNKNOWN, ABSENT = "?", "-"  # a number that is not known is never 0
# Of a UUIDv7: the millisecond of its birth and 12 random bits. `show` takes it.
SHORT_ID = 18
# The millisecond alone, where it is enough to tell the calls on the screen apart.
SHORTEST_ID = 13
_GAP = "  "
_COMFORT = 3  # times the narrowest, a column is still pleasant to read


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Where the terminal is small: `compact` says it in fewer letters, then it is cut down to `narrow`."""

    title: str
    text: Callable[[Row], str]
    compact: Callable[[Row], str] | None = None
    right: bool = False
    narrow: int | None = None
    optional: bool = False  # left out when no row has a value


@dataclass(frozen=True, slots=True)
class Layout:
    columns: tuple[Column, ...]
    widths: tuple[int, ...]
    gap: str
    colored: bool

    def header(self) -> str:
        line = self.gap.join(_cell(c.title, c, w) for c, w in zip(self.columns, self.widths, strict=True)).rstrip()
        return _dim(line) if self.colored else line

    def line(self, row: Row) -> str:
        cells = [_cell(c.text(row), c, w) for c, w in zip(self.columns, self.widths, strict=True)]
        if not self.colored:
            return self.gap.join(cells).rstrip()
        return self.gap.join(_paint(c.title, cell, row) for c, cell in zip(self.columns, cells, strict=True))


def layout(rows: Sequence[Row], *, width: int, zone: tzinfo | None, colored: bool = False, growing: bool = False) -> Layout:
    """Widths for these rows; `growing`: and for the like of them, still to come. `zone` None is the machine's own."""
    columns = [c for c in _columns(rows, zone, growing) if not c.optional or growing or any(c.text(row) != ABSENT for row in rows)]
    widths = _natural(columns, rows, growing)
    gap, fitted = _GAP, _fitted(columns, widths, width, _GAP, _COMFORT)
    if _total(fitted, gap) > width:
        columns = [replace(c, text=c.compact or c.text) for c in columns]
        gap, fitted = " ", _fitted(columns, _natural(columns, rows, growing), width, " ")
    return Layout(tuple(columns), tuple(fitted), gap, colored)


def grid(names: Sequence[str], rows: Sequence[Sequence[Any]], *, width: int) -> list[str]:
    """Any values under their names, numbers right; what is too wide is cut. Too many columns for `width`: below one another."""
    columns = [Column(title=printable(n), text=str, right=_is_numeric([row[i] for row in rows]), narrow=8) for i, n in enumerate(names)]
    texts = [[_shown(value) for value in row] for row in rows]
    widths = _fitted(columns, [max([len(c.title), *(len(row[i]) for row in texts)]) for i, c in enumerate(columns)], width, _GAP)
    if _total(widths, _GAP) > width:
        title = max(len(c.title) for c in columns)
        return [line for row in texts for line in (*(f"{c.title:<{title}}{_GAP}{text}" for c, text in zip(columns, row, strict=True)), "")]
    lines = [[c.title for c in columns], ["─" * w for w in widths], *texts]
    return [_GAP.join(_cell(text, c, w) for text, c, w in zip(line, columns, widths, strict=True)).rstrip() for line in lines]


def _is_numeric(values: Sequence[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in known)


def _shown(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, dict):
        return printable(", ".join(f"{name}={item}" for name, item in value.items())) or ABSENT
    return printable(str(plain(value))) if not isinstance(value, float) else f"{value:.6g}"


def totals(rows: Sequence[Row]) -> str:
    """`50 calls · $0.0123 · 2 of unknown cost`."""
    known = [row["cost_total"] for row in rows if row["cost_total"] is not None]
    parts = [f"{len(rows)} call{'' if len(rows) == 1 else 's'}", money(sum(known, Decimal(0)) if known else None)]
    if 0 < len(known) < len(rows):
        parts.append(f"{len(rows) - len(known)} of unknown cost")
    return " · ".join(parts)


def money(value: Decimal | None) -> str:
    """USD: cents and more in full, less with three digits that count; the unknown is never 0."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return "$0"
    places = max(4, 2 - value.adjusted())
    return f"${value:.{min(places, 18)}f}"


def tokens_in(row: Row) -> int | None:
    return _sum(
        row,
        "input_tokens",
        "cache_read_tokens",
        "cache_write_5m_tokens",
        "cache_write_1h_tokens",
        "input_audio_tokens",
        "input_image_tokens",
    )


def tokens_out(row: Row) -> int | None:
    return _sum(row, "output_tokens", "reasoning_tokens", "output_audio_tokens")


def _sum(row: Row, *names: str) -> int | None:
    known = [row[name] for name in names if row[name] is not None]
    return sum(known) if known else None


def _columns(rows: Sequence[Row], zone: tzinfo | None, growing: bool) -> list[Column]:
    days = {row["received_at"].astimezone(zone).date() for row in rows if row["received_at"]}
    form = "%H:%M:%S" if len(days) < 2 or growing else "%m-%d %H:%M:%S"
    ids = [row["request_id"] for row in rows if row["request_id"]]
    shorter = SHORTEST_ID if not growing and len({name[:SHORTEST_ID] for name in ids}) == len(ids) else SHORT_ID
    return [
        Column(title="TIME", text=lambda row: f"{row['received_at'].astimezone(zone):{form}}" if row["received_at"] else ABSENT),
        Column(title="MODEL", text=_model, compact=lambda row: _DATED.sub("", _model(row)), narrow=8),
        Column(
            title="STATUS",
            text=_status,
            compact=lambda row: _status(row).partition(" ")[0] + ("!" if " " in _status(row) else ""),
        ),
        Column(title="IN", text=lambda row: _count(row, tokens_in(row)), right=True),
        Column(title="OUT", text=lambda row: _count(row, tokens_out(row)), right=True),
        Column(title="COST", text=lambda row: money(row["cost_total"]), right=True),
        Column(title="MS", text=lambda row: UNKNOWN if row["duration_ms"] is None else f"{row['duration_ms']:.0f}", right=True),
        Column(title="USER", text=lambda row: printable(row["user_id"] or ABSENT), narrow=5, optional=True),
        Column(title="ID", text=lambda row: _id(row, SHORT_ID), compact=lambda row: _id(row, shorter)),
    ]


_GROWN = {"MODEL": 24, "STATUS": 6, "IN": 7, "OUT": 6, "COST": 10, "MS": 6, "USER": 10, "ID": SHORT_ID}
_DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")
_END_WORDS = {"client_disconnected": "left", "upstream_error": "broken", "interrupted": "cut"}


def _id(row: Row, letters: int) -> str:
    return (row["request_id"] or ABSENT)[:letters]


def _model(row: Row) -> str:
    return printable(
        row["model"] or row["model_requested"] or row["operation"] or row["upstream"] or (ABSENT if row["request_id"] else "(unreadable)")
    )


def _status(row: Row) -> str:
    """The status; beside it, or instead of it, how the call ended when it did not end well."""
    end = row["end"]
    word = "" if end in {None, "complete", "rejected"} else _END_WORDS.get(end, end)
    return " ".join(part for part in (str(row["status"] or ""), word) if part) or ABSENT


def _count(row: Row, value: int | None) -> str:
    if value is None:
        return UNKNOWN
    return f"~{value}" if row["usage_source"] == "estimated" else str(value)


def printable(text: str) -> str:
    """What callers and providers send may hold control characters: none of them reaches the terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _natural(columns: Sequence[Column], rows: Sequence[Row], growing: bool) -> list[int]:
    return [max([len(c.title), *(len(c.text(row)) for row in rows), _GROWN[c.title] if growing else 0]) for c in columns]


def _total(widths: Sequence[int], gap: str) -> int:
    return sum(widths) + len(gap) * (len(widths) - 1)


def _fitted(columns: Sequence[Column], widths: list[int], width: int, gap: str, times: int = 1) -> list[int]:
    """Takes from the widest column that may shrink, letter by letter, until the line fits or none can give."""
    fitted = list(widths)
    while _total(fitted, gap) > width:
        giving = [i for i, c in enumerate(columns) if c.narrow is not None and fitted[i] > c.narrow * times]
        if not giving:
            break
        fitted[max(giving, key=lambda i: fitted[i])] -= 1
    return fitted


def _cell(text: str, column: Column, width: int) -> str:
    cut = text if len(text) <= width else f"{text[: width - 1]}…"
    return cut.rjust(width) if column.right else cut.ljust(width)


def _dim(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m"


def _paint(title: str, cell: str, row: Row) -> str:
    if title in {"TIME", "ID"}:
        return _dim(cell)
    if title == "STATUS":
        return f"\x1b[{32 if _is_well(row) else 31}m{cell}\x1b[0m"
    return cell


def _is_well(row: Row) -> bool:
    return row["status"] is not None and row["status"] < 400 and row["end"] in {None, "complete"}
