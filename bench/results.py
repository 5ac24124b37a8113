"""All runs of one comparison: medians over the rounds; what is compared is compared inside a round."""

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.scenarios import Result

Value = Callable[[Result], float | None]


class Results:
    """`circumstances` are facts about machine, versions and this run: what stands under the tables."""

    def __init__(self, results: Iterable[Result], circumstances: dict[str, Any]) -> None:
        self.all: list[Result] = []
        self.circumstances = circumstances
        self._at: dict[tuple[int, str, str], Result] = {}
        for result in results:
            self.add(result)

    def add(self, result: Result) -> None:
        self.all.append(result)
        self._at[result.round, result.scenario, result.target] = result

    @property
    def _rounds(self) -> list[int]:
        return sorted({result.round for result in self.all})

    @property
    def targets(self) -> list[str]:
        return list(dict.fromkeys(result.target for result in self.all))

    def median(self, target: str, scenario: str, value: Value) -> float | None:
        return _median(value(run) for number in self._rounds if (run := self._at.get((number, scenario, target))))

    def added(self, target: str, scenario: str, value: Value) -> float | None:
        """Above direct, in the same round."""
        return _median(ours - direct for ours, direct in self._pairs(target, "direct", scenario, value))

    def ratio(self, target: str, to: str, scenario: str, value: Value) -> float | None:
        return _median(ours / theirs for ours, theirs in self._pairs(target, to, scenario, value) if theirs)

    def same_bytes(self, target: str, *scenarios: str) -> bool | None:
        """Whether status and body of every answer equal the direct ones; None where nothing was compared."""
        mine = [run for run in self.all if run.target == target and run.scenario in scenarios and run.load["ended"]]
        direct = {run.scenario: run.load["hash"] for run in self.all if run.target == "direct"}
        if not mine or not direct:
            return None
        return all(run.load["hash"] == direct.get(run.scenario) and not run.load["mismatched"] for run in mine)

    def count(self, target: str, value: Callable[[Result], int]) -> int:
        return sum(value(run) for run in self.all if run.target == target)

    def save(self, path: Path) -> None:
        lines = [self.circumstances, *(dataclasses.asdict(result) for result in self.all)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    @classmethod
    def saved(cls, path: Path) -> "Results":
        circumstances, *lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
        return cls((Result(**line) for line in lines), circumstances)

    def _pairs(self, target: str, other: str, scenario: str, value: Value) -> Iterator[tuple[float, float]]:
        for number in self._rounds:
            ours, theirs = self._at.get((number, scenario, target)), self._at.get((number, scenario, other))
            if ours and theirs and (a := value(ours)) is not None and (b := value(theirs)) is not None:
                yield a, b


def _median(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None


def time_ms(kind: str, quantile: str) -> Value:
    """Milliseconds; None where nothing was measured."""
    return lambda run: run.load[kind][quantile] / 1e3 if run.load[kind]["n"] else None


def calls_per_s(run: Result) -> float:
    return float(run.load["rps"])


def chunks_per_s(run: Result) -> float:
    return float(run.load["deltas_per_s"])


def calls_per_cpu_s(run: Result) -> float | None:
    """What one full core of the proxy would carry."""
    return run.load["done"] / run.proxy_cpu_s if run.proxy_cpu_s else None


def us_per_chunk(run: Result) -> float | None:
    return run.proxy_cpu_s * 1e6 / run.load["deltas"] if run.load["deltas"] and run.cpu_s else None


def peak_mib(run: Result) -> float | None:
    return run.proxy_peak_mib or None


def peak_of_all_mib(run: Result) -> float | None:
    return sum(run.peak_mib.values()) or None


def us_per_call(role: str) -> Value:
    """CPU of one role's processes."""

    def value(run: Result) -> float | None:
        calls = run.load["ended"] if run.scenario == "delivery" else run.load["done"]
        return run.cpu_s[role] * 1e6 / calls if role in run.cpu_s and calls else None

    return value
