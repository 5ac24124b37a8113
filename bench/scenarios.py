"""What a target goes through, and what is measured meanwhile."""

import gzip
import json
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import processes
from bench.serving import BUILD, Running


@dataclass(frozen=True, slots=True)
class Scenario:
    """`load` are the load generator's arguments; the model's name tells the provider what to do (chunks, ms between them)."""

    name: str
    load: str
    model: str = "fake"


SCENARIOS = (
    Scenario("json_1", "-c 1 -w 1"),
    Scenario("json_32", "-c 32 -w 1"),
    Scenario("json_256", "-c 256 -w 1"),
    Scenario("streams_100", "-c 100 -r 1 -w 1 -s", "fake-c200-d10"),  # 10,000 chunks/s offered
    Scenario("streams_1000", "-c 1000 -r 2 -w 1 -s", "fake-c40-d100"),  # the same over ten times the streams
    Scenario("overload", "-c 1000 -r 2 -w 1 -s", "fake-c200-d10"),  # 100,000 chunks/s offered: more than a core relays
    Scenario("back_to_back", "-c 16 -w 1 -s", "fake-c200"),  # no pause between the chunks
)
SHORT_SCENARIOS = ("json_1", "json_32", "streams_100", "streams_1000", "overload")
DELIVERY = "-c 8 -t 600 -w 0 -n {calls}"
# The consumer works through what the shipper brings after the load has ended.
DELIVERY_S = 300.0


@dataclass(slots=True)
class Result:
    """One run: the load generator's numbers (times in µs), the target's CPU seconds and peak MiB by role."""

    target: str
    scenario: str
    round: int
    load: dict[str, Any]
    cpu_s: dict[str, float] = field(default_factory=dict)
    peak_mib: dict[str, float] = field(default_factory=dict)
    others: float = 0.0  # cores that all other processes took

    @property
    def errors(self) -> int:
        """Answers with a wrong status or a broken body."""
        return int(self.load["bad_status"] + self.load["broken"])

    @property
    def late(self) -> int:
        """Answers that had not ended 15 s after the run."""
        return int(self.load["unfinished"])

    @property
    def proxy_cpu_s(self) -> float:
        """Of what carries the calls: Clearpane's worker; every process of any other target."""
        return self.cpu_s.get("worker", sum(self.cpu_s.values()))

    @property
    def proxy_peak_mib(self) -> float:
        return self.peak_mib.get("worker", sum(self.peak_mib.values()))


class LoadFailed(Exception):
    """The load generator ended with an error."""


def measure(scenario: Scenario, number: int, target: Running, provider: Running, core: int, seconds: float) -> Result:
    """One run of one scenario; CPU is taken inside the measured window."""
    load = start_load(f"{scenario.load} -t {seconds}", target, core, scenario.model)
    ours = {os.getpid(), *provider.roots, *target.roots}
    begin, end = _sample(load, "BEGIN", target, ours), _sample(load, "END", target, ours)
    found = outcome(load)
    others = max(0.0, end.others_s - begin.others_s)
    cpu_s = {role: end.cpu_s[role] - begin.cpu_s.get(role, 0.0) for role in end.cpu_s}
    peak = processes.peak_mib_by_role(target.roots)
    return Result(target.target.name, scenario.name, number, found, cpu_s, peak, others / (end.now - begin.now))


def deliver(number: int, target: Running, core: int, calls: int) -> Result:
    """A number of calls, and the CPU of every process until the last of their records is in the lake."""
    lake = target.work / "lake"
    wait_for_records(lake, 1)  # of the call that showed that the target serves
    before = processes.cpu_by_role(target.roots, processes.table())
    found = outcome(start_load(DELIVERY.format(calls=calls), target, core))
    wait_for_records(lake, found["ended"] + 1)
    after = processes.cpu_by_role(target.roots, processes.table())
    return Result(target.target.name, "delivery", number, found, {role: after[role] - before.get(role, 0.0) for role in after})


def wait_for_records(lake: Path, expected: int) -> None:
    deadline = time.monotonic() + DELIVERY_S
    while (arrived := records(lake)) < expected:
        if time.monotonic() > deadline:
            raise LoadFailed(f"{arrived} of {expected} records were in the lake after {DELIVERY_S:g} s")
        time.sleep(0.25)


def records(lake: Path) -> int:
    return sum(_lines(file) for file in lake.glob("calls/**/*.jsonl.gz"))


def _lines(file: Path) -> int:
    with gzip.open(file) as lines:
        return sum(1 for _ in lines)


def start_load(arguments: str, target: Running, core: int, model: str = "fake") -> subprocess.Popen[str]:
    command = ["taskset", "-c", str(core), str(BUILD / "load"), *arguments.split(), *target.load_arguments(model)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outcome(load: subprocess.Popen[str]) -> dict[str, Any]:
    """The last line that it prints. `communicate` would lose what `readline` has buffered of it."""
    assert load.stdout is not None
    assert load.stderr is not None
    output, errors = load.stdout.read(), load.stderr.read()
    if load.wait() or not output:
        raise LoadFailed(f"the load generator ended with {load.returncode}: {errors[-400:]}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


@dataclass(frozen=True, slots=True)
class _Sample:
    """The machine at the moment at which the load generator printed a mark."""

    now: float
    cpu_s: dict[str, float]
    others_s: float  # CPU seconds so far of what is not ours


def _sample(load: subprocess.Popen[str], mark: str, target: Running, ours: set[int]) -> _Sample:
    assert load.stdout is not None
    line = load.stdout.readline().strip()
    if line != mark:
        raise LoadFailed(f"{mark} expected, {line!r} found: {load.communicate()[1][-400:].strip()}")
    table, busy_s = processes.table(), processes.busy_s()
    return _Sample(time.monotonic(), processes.cpu_by_role(target.roots, table), busy_s - processes.cpu_s(ours, table))
