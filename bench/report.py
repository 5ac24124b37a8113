"""The results as a Markdown table: medians over the rounds; what is compared is compared inside a round."""

import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.scenarios import Result
from bench.targets import ROOT, nginx

Value = Callable[[Result], float | None]


class Results:
    """All runs, by round, scenario and target."""

    def __init__(self, results: Iterable[Result]) -> None:
        self.all = list(results)
        self._at = {(result.round, result.scenario, result.target): result for result in self.all}
        self._rounds = sorted({result.round for result in self.all})

    def median(self, target: str, scenario: str, value: Value) -> float | None:
        return _median(value(run) for number in self._rounds if (run := self._at.get((number, scenario, target))))

    def added(self, target: str, scenario: str, value: Value) -> float | None:
        """Above direct, in the same round."""
        return _median(ours - direct for ours, direct in self._pairs(target, "direct", scenario, value))

    def share(self, target: str, of: str, scenario: str, value: Value) -> float | None:
        return _median(ours / theirs for ours, theirs in self._pairs(target, of, scenario, value) if theirs)

    def _pairs(self, target: str, other: str, scenario: str, value: Value) -> Iterable[tuple[float, float]]:
        for number in self._rounds:
            ours, theirs = self._at.get((number, scenario, target)), self._at.get((number, scenario, other))
            if ours and theirs and (a := value(ours)) is not None and (b := value(theirs)) is not None:
                yield a, b

    def same_bytes(self, target: str) -> str:
        """Whether status and body of every answer equal the direct ones."""
        mine = [result for result in self.all if result.target == target and result.scenario != "delivery"]
        direct = {result.scenario: result.load["hash"] for result in self.all if result.target == "direct"}
        if not direct:
            return ""
        same = all(result.load["hash"] == direct.get(result.scenario) and not result.load["mismatched"] for result in mine)
        return "yes" if same else "NO"


def _median(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None


def _time(kind: str, quantile: str) -> Value:
    """Milliseconds; None where nothing was measured."""
    return lambda run: run.load[kind][quantile] / 1e3 if run.load[kind]["n"] else None


def _calls_per_s(run: Result) -> float:
    return float(run.load["rps"])


def _per_cpu_s(role: str | None) -> Value:
    """Calls per CPU second of one role, or of all processes: what one full core would carry."""

    def value(run: Result) -> float | None:
        cpu_s = sum(run.cpu_s.values()) if role is None else run.cpu_s.get(role, 0.0)
        return run.load["done"] / cpu_s if cpu_s else None

    return value


def _us_per_chunk(run: Result) -> float | None:
    return sum(run.cpu_s.values()) * 1e6 / run.load["deltas"] if run.load["deltas"] and run.cpu_s else None


def _peak(role: str | None) -> Value:
    return lambda run: (sum(run.peak_mib.values()) if role is None else run.peak_mib.get(role)) or None


def _ms_per_call(role: str) -> Value:
    return lambda run: run.cpu_s[role] * 1e3 / run.load["ended"] if role in run.cpu_s else None


def table(results: Results, targets: list[str]) -> str:
    rows = [("", *targets), ("---", *("---:" for _ in targets))]
    rows += [(title, *(cell(results, target) for target in targets)) for title, cell in ROWS]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


Cell = Callable[[Results, str], str]


def _both(scenario: str, kind: str, *, added: bool, digits: int) -> Cell:
    """p50 / p99 in milliseconds."""

    def cell(results: Results, target: str) -> str:
        if added and target == "direct":
            return ""
        take = results.added if added else results.median
        return " / ".join(_number(take(target, scenario, _time(kind, quantile)), digits) for quantile in ("p50", "p99"))

    return cell


def _one(scenario: str, value: Value, digits: int = 0) -> Cell:
    return lambda results, target: _number(results.median(target, scenario, value), digits)


def _of_nginx(results: Results, target: str) -> str:
    return _number(results.share(target, "nginx", "many", _per_cpu_s(None)), 2)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


ROWS: list[tuple[str, Cell]] = [
    ("same bytes as direct", Results.same_bytes),
    ("errors", lambda results, target: str(sum(run.errors for run in results.all if run.target == target))),
    ("1 connection: latency p50 / p99, ms", _both("one", "lat", added=False, digits=3)),
    ("1 connection: **added** p50 / p99, ms", _both("one", "lat", added=True, digits=3)),
    ("32 connections: calls/s", _one("many", _calls_per_s)),
    ("32 connections: p50 / p99, ms", _both("many", "lat", added=False, digits=2)),
    ("calls per CPU second, all processes", _one("many", _per_cpu_s(None))),
    ("calls per CPU second, worker alone", _one("many", _per_cpu_s("worker"))),
    ("calls per CPU second, share of nginx", _of_nginx),
    ("100 streams: time to first byte p50 / p99, ms", _both("streams", "ttfb", added=False, digits=2)),
    ("100 streams: delay of a chunk p50 / p99, ms", _both("streams", "chunk", added=False, digits=2)),
    ("100 streams: CPU per chunk, µs", _one("streams", _us_per_chunk)),
    ("100 streams: peak RSS, all processes, MiB", _one("streams", _peak(None))),
    ("100 streams: peak RSS, worker, MiB", _one("streams", _peak("worker"))),
    ("call to lake: CPU of the worker per call, ms", _one("delivery", _ms_per_call("worker"), 3)),
    ("call to lake: CPU of the shipper per call, ms", _one("delivery", _ms_per_call("shipper"), 3)),
    ("call to lake: CPU of the consumer per call, ms", _one("delivery", _ms_per_call("consumer"), 3)),
]


def circumstances(results: Results, rounds: int, seconds: float) -> str:
    others = [result.others for result in results.all if result.scenario != "delivery"]
    cores = os.cpu_count() or 1
    taken = f"{statistics.median(others):.2f} (median), {max(others):.2f} (worst run)"
    lines = [
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, commit {_commit()}, Python {platform.python_version()}, {_nginx_version()}.",
        f"{_processor()}, {cores} cores, Linux {platform.release()}; one core for the target, one for provider and load.",
        f"Medians of {rounds} interleaved rounds, {seconds:g} s per run. All other processes took, in cores: {taken}.",
    ]
    return "\n".join(lines)


def _commit() -> str:
    try:
        found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def _nginx_version() -> str:
    if (program := nginx()) is None:
        return "no nginx"
    return subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr.strip().removeprefix("nginx version: ")


def _processor() -> str:
    match = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return match[1] if match else platform.machine()
