"""What a target goes through, and what is measured meanwhile."""

import gzip
import json
import os
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import processes
from bench.targets import BUILD, Running

# Load arguments; the model's name tells the provider what to do (chunks, ms between them).
SCENARIOS = {
    "one": "-c 1 -t {seconds} -w 1",
    "many": "-c 32 -t {seconds} -w 1",
    "streams": "-c 100 -t {seconds} -w 1 -r 2 -s -m fake-c200-d10",  # 10,000 chunks/s offered
}
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
        return int(self.load["bad_status"] + self.load["broken"] + self.load["unfinished"] + self.load["mismatched"])


class LoadFailed(Exception):
    """The load generator ended with an error."""


def measure(name: str, scenario: str, number: int, target: Running, provider: Running, core: int, seconds: float) -> Result:
    """One run of one scenario; CPU is taken inside the measured window."""
    load = _start(SCENARIOS[scenario].format(seconds=seconds), target.url, core)
    begin, end = _sample(load, "BEGIN", target), _sample(load, "END", target)
    found = _outcome(load)
    known = processes.tree({load.pid, os.getpid(), *provider.roots, *target.roots}, processes.table()) | {load.pid}
    others = processes.others_s(begin.table, end.table, known) + end.stolen_s - begin.stolen_s
    cpu_s = {role: end.cpu_s[role] - begin.cpu_s.get(role, 0.0) for role in end.cpu_s}
    peak = processes.peak_mib_by_role(target.roots)
    return Result(name, scenario, number, found, cpu_s, peak, others / (end.now - begin.now))


def deliver(name: str, number: int, target: Running, core: int, calls: int) -> Result:
    """A number of calls, and the CPU of every process until the last of their records is in the lake."""
    _wait_for_records(target.work / "lake", 1)  # of the call that showed that the target serves
    before = processes.cpu_by_role(target.roots)
    found = _outcome(_start(DELIVERY.format(calls=calls), target.url, core))
    _wait_for_records(target.work / "lake", found["ended"] + 1)
    after = processes.cpu_by_role(target.roots)
    return Result(name, "delivery", number, found, {role: after[role] - before.get(role, 0.0) for role in after})


def _wait_for_records(lake: Path, expected: int) -> None:
    deadline = time.monotonic() + DELIVERY_S
    while (arrived := _records(lake)) < expected:
        if time.monotonic() > deadline:
            raise LoadFailed(f"{arrived} of {expected} records were in the lake after {DELIVERY_S:g} s")
        time.sleep(0.25)


def _records(lake: Path) -> int:
    return sum(_lines(file) for file in lake.glob("calls/**/*.jsonl.gz"))


def _lines(file: Path) -> int:
    with gzip.open(file) as lines:
        return sum(1 for _ in lines)


def _start(arguments: str, url: str, core: int) -> subprocess.Popen[str]:
    command = ["taskset", "-c", str(core), str(BUILD / "load"), "-u", url, *shlex.split(arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _outcome(load: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = load.communicate()
    if load.returncode:
        raise LoadFailed(errors[-400:])
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


@dataclass(frozen=True, slots=True)
class _Sample:
    """The machine at the moment at which the load generator printed a mark."""

    now: float
    table: processes.Table
    cpu_s: dict[str, float]
    stolen_s: float


def _sample(load: subprocess.Popen[str], mark: str, target: Running) -> _Sample:
    assert load.stdout is not None
    line = load.stdout.readline().strip()
    if line != mark:
        raise LoadFailed(f"{mark} expected, {line!r} found: {load.communicate()[1][-400:]}")
    return _Sample(time.monotonic(), processes.table(), processes.cpu_by_role(target.roots), processes.stolen_s())
