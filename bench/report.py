"""The results as Markdown: targets as rows, one table per kind of load."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from bench import bars, circumstances
from bench.results import (
    Results,
    Value,
    calls_per_cpu_s,
    calls_per_s,
    chunks_per_s,
    peak_mib,
    peak_of_all_mib,
    time_ms,
    us_per_call,
    us_per_chunk,
)

Cell = Callable[[Results, str], str]
Column = tuple[str, Cell]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _one(scenario: str, value: Value, digits: int = 0) -> Cell:
    return lambda results, target: _number(results.median(target, scenario, value), digits)


def _both(scenario: str, kind: str, digits: int = 2) -> Cell:
    """p50 / p99 in milliseconds."""
    values = [time_ms(kind, quantile) for quantile in ("p50", "p99")]
    return lambda results, target: _joined(_number(results.median(target, scenario, value), digits) for value in values)


def _added(scenario: str, kind: str, digits: int = 3) -> Cell:
    values = [time_ms(kind, quantile) for quantile in ("p50", "p99")]

    def cell(results: Results, target: str) -> str:
        return "" if target == "direct" else _joined(_number(results.added(target, scenario, value), digits) for value in values)

    return cell


def _of_nginx(scenario: str, value: Value) -> Cell:
    return lambda results, target: _number(results.ratio(target, "nginx", scenario, value), 2)


def _same(*scenarios: str) -> Cell:
    return lambda results, target: {True: "yes", False: "NO", None: ""}[results.same_bytes(target, *scenarios)]


def _wrong(results: Results, target: str) -> str:
    return f"{results.count(target, lambda run: run.errors)} / {results.count(target, lambda run: run.late)}"


def _joined(cells: Iterable[str]) -> str:
    return " / ".join(cell for cell in cells if cell)


CALLS: list[Column] = [
    ("same bytes, JSON", _same("json_1", "json_32", "json_256")),
    ("same bytes, SSE", _same("streams_100", "streams_1000", "overload", "back_to_back")),
    ("errors / too late", _wrong),
    ("1 connection: added p50 / p99, ms", _added("json_1", "lat")),
    ("32: calls per CPU s", _one("json_32", calls_per_cpu_s)),
    ("of nginx's", _of_nginx("json_32", calls_per_cpu_s)),
    ("32: calls/s", _one("json_32", calls_per_s)),
    ("32: p50 / p99, ms", _both("json_32", "lat")),
    ("256: calls per CPU s", _one("json_256", calls_per_cpu_s)),
    ("256: calls/s", _one("json_256", calls_per_s)),
    ("256: p50 / p99, ms", _both("json_256", "lat", 1)),
]
STREAMS: list[Column] = [
    ("100: first byte p50 / p99, ms", _both("streams_100", "ttfb")),
    ("100: chunk p50 / p99, ms", _both("streams_100", "chunk")),
    ("100: CPU µs per chunk", _one("streams_100", us_per_chunk)),
    ("1,000: first byte p50 / p99, ms", _both("streams_1000", "ttfb")),
    ("1,000: chunk p50 / p99, ms", _both("streams_1000", "chunk")),
    ("1,000: CPU µs per chunk", _one("streams_1000", us_per_chunk)),
    ("1,000: peak RSS, MiB", _one("streams_1000", peak_mib)),
    ("all processes", _one("streams_1000", peak_of_all_mib)),
]
OVERLOAD: list[Column] = [
    ("overload: chunks/s", _one("overload", chunks_per_s)),
    ("longest wait of a client, ms", _one("overload", time_ms("wait", "max"))),
    ("first byte p50 / p99, ms", _both("overload", "ttfb", 0)),
    ("chunk p50 / p99, ms", _both("overload", "chunk", 1)),
    ("peak RSS, MiB", _one("overload", peak_mib)),
    ("back to back: chunks/s", _one("back_to_back", chunks_per_s)),
    ("first byte p50 / p99, ms", _both("back_to_back", "ttfb")),
]
ROLES = ("worker", "recorder", "shipper", "consumer", "other")
PROCESSES: list[Column] = [
    *((f"32: {role}", _one("json_32", us_per_call(role), 1)) for role in ROLES),
    *((f"to lake: {role}", _one("delivery", us_per_call(role), 1)) for role in ROLES),
]


def text(results: Results) -> str:
    """Every table, the bars, and the circumstances."""
    own = [target for target in results.targets if target.startswith("clearpane")]
    judged = [target for target in own if "delivery" not in target]
    tables = {
        "Calls": _rows(results, CALLS, results.targets),
        "Streams": _rows(results, STREAMS, results.targets),
        "More than a core can do": _rows(results, OVERLOAD, results.targets),
        "Clearpane's processes: CPU per call, µs": _rows(results, PROCESSES, own),
        "The bars": bars.table(results, judged),
    }
    parts = [f"### {title}\n\n{markdown(rows)}" for title, rows in tables.items() if len(rows) > 1]
    return "\n\n".join([*parts, circumstances.lines(results)])


def _rows(results: Results, columns: list[Column], targets: list[str]) -> list[tuple[str, ...]]:
    """Columns and targets without a figure are left out."""
    rows = [[target, *(cell(results, target) for _, cell in columns)] for target in targets]
    rows = [row for row in rows if any(row[1:])]
    kept = [index for index in range(len(columns) + 1) if any(row[index] for row in rows)]
    titles = ["target", *(title for title, _ in columns)]
    return [tuple(row[index] for index in kept) for row in [titles, *rows]]


def markdown(rows: list[tuple[str, ...]]) -> str:
    head, *body = rows
    lines = [head, ("---", *("---:" for _ in head[1:])), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(document: Path, name: str, content: str) -> None:
    """Puts `content` between the document's two marks NAME. Raises ValueError when they are not there."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = document.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(old)) != 1:
        raise ValueError(f"{document.name} needs the marks {begin} and {end}, once")
    document.write_text(pattern.sub(lambda _: f"{begin}\n\n{content}\n\n{end}", old), encoding="utf-8")
