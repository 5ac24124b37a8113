"""Rows as an aligned table that fits a terminal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from decimal import Decimal
from typing import Any

from clearpane.contract.records import Row
from reader.lines import plain

UNKNOWN = "-"
# Of a UUIDv7: the millisecond of its birth and 12 random bits. `show` takes it.
SHORT_ID = 18
_GAP = "  "


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """`narrow` is the least width it is cut to when the terminal is small."""

    title: str
    text: Callable[[Row], str]
    right: bool = False
    narrow: int | None = None
    optional: bool = False  # left out when no row has a value


@dataclass(frozen=True, slots=True)
class Layout:
    columns: tuple[Column, ...]
    widths: tuple[int, ...]
    colored: bool

    def header(self) -> str:
        line = _GAP.join(_cell(c.title, c, w) for c, w in zip(self.columns, self.widths, strict=True)).rstrip()
        return _dim(line) if self.colored else line

    def line(self, row: Row) -> str:
        cells = [_cell(c.text(row), c, w) for c, w in zip(self.columns, self.widths, strict=True)]
        if not self.colored:
            return _GAP.join(cells).rstrip()
        return _GAP.join(_paint(c.title, cell, row) for c, cell in zip(self.columns, cells, strict=True))


def layout(rows: Sequence[Row], *, width: int, zone: tzinfo | None, colored: bool = False, growing: bool = False) -> Layout:
    """Widths for these rows; `growing`: and for the like of them, still to come. `zone` None is the machine's own."""
    chosen = [c for c in _columns(rows, zone, growing) if not c.optional or growing or any(c.text(row) != UNKNOWN for row in rows)]
    widths = [max([len(c.title), *(len(c.text(row)) for row in rows), _GROWN.get(c.title, 0) if growing else 0]) for c in chosen]
    return Layout(tuple(chosen), tuple(_fitted(chosen, widths, width)), colored)


def grid(names: Sequence[str], rows: Sequence[Sequence[Any]], *, width: int) -> list[str]:
    """Any values under their names; numbers stand right. Columns that are too wide for `width` are cut."""
    columns = [Column(title=_clean(name), text=str, right=_is_numeric([row[i] for row in rows]), narrow=8) for i, name in enumerate(names)]
    texts = [[_shown(value) for value in row] for row in rows]
    widths = _fitted(columns, [max([len(c.title), *(len(row[i]) for row in texts)]) for i, c in enumerate(columns)], width)
    lines = [[c.title for c in columns], ["─" * w for w in widths], *texts]
    return [_GAP.join(_cell(text, c, w) for text, c, w in zip(line, columns, widths, strict=True)).rstrip() for line in lines]


def _is_numeric(values: Sequence[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in known)


def _shown(value: Any) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, dict):
        return _clean(", ".join(f"{name}={item}" for name, item in value.items())) or UNKNOWN
    return _clean(str(plain(value))) if not isinstance(value, float) else f"{value:.6g}"


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
    return [
        Column(title="TIME", text=lambda row: f"{row['received_at'].astimezone(zone):{form}}" if row["received_at"] else UNKNOWN),
        Column(title="MODEL", text=_model, narrow=12),
        Column(title="STATUS", text=_status, narrow=6),
        Column(title="IN", text=lambda row: _count(row, tokens_in(row)), right=True),
        Column(title="OUT", text=lambda row: _count(row, tokens_out(row)), right=True),
        Column(title="COST", text=lambda row: money(row["cost_total"]), right=True),
        Column(title="MS", text=lambda row: UNKNOWN if row["duration_ms"] is None else f"{row['duration_ms']:.0f}", right=True),
        Column(title="USER", text=lambda row: _clean(row["user_id"]), narrow=6, optional=True),
        Column(title="ID", text=lambda row: (row["request_id"] or UNKNOWN)[:SHORT_ID]),
    ]


_GROWN = {"MODEL": 24, "STATUS": 6, "IN": 7, "OUT": 6, "COST": 10, "MS": 6, "USER": 10, "ID": SHORT_ID}
_END_WORDS = {"client_disconnected": "left", "upstream_error": "broken", "interrupted": "cut"}


def _model(row: Row) -> str:
    return _clean(row["model"] or row["model_requested"] or row["operation"] or row["upstream"])


def _status(row: Row) -> str:
    """The status; beside it, or instead of it, how the call ended when it did not end well."""
    end = row["end"]
    word = "" if end in {None, "complete", "rejected"} else _END_WORDS.get(end, end)
    return " ".join(part for part in (str(row["status"] or ""), word) if part) or UNKNOWN


def _count(row: Row, value: int | None) -> str:
    if value is None:
        return UNKNOWN
    return f"~{value}" if row["usage_source"] == "estimated" else str(value)


def _clean(text: str | None) -> str:
    """What callers send may hold control characters: none of them reaches the terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text) if text else UNKNOWN


def _fitted(columns: Sequence[Column], widths: list[int], width: int) -> list[int]:
    """Takes from the widest column that may shrink, letter by letter, until the line fits or none can give."""
    fitted = list(widths)
    while sum(fitted) + len(_GAP) * (len(fitted) - 1) > width:
        giving = [i for i, c in enumerate(columns) if c.narrow is not None and fitted[i] > c.narrow]
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
