"""Compare Clearpane with nginx and with no proxy at all, in front of the same fake provider.

Provider and load generator share one core, the target has another for itself. In each round every target
meets each scenario in turn, the order reversed in every second round, so that a slow minute of the machine
hits all of them. Prints a Markdown table; progress goes to standard error. Linux, two cores, a C compiler.
"""

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from bench import processes, report
from bench.scenarios import SCENARIOS, LoadFailed, Result, deliver, measure
from bench.targets import BUILD, HERE, PROVIDER, TARGETS, NotStarted, Running, Target, nginx, running

NGINX_MISSING = "nginx is missing and left out; on Debian and Ubuntu: apt-get install nginx-light"
# A run beside a busier machine is done again, twice at most; the quietest counts.
OTHERS_MAX, TRIES, PATIENCE_S = 0.15, 3, 15.0
QUICK_PATIENCE_S = 1.0


def main() -> int:
    arguments = _arguments()
    if problem := _missing():
        print(problem, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    _build()
    targets = [target for target in TARGETS if arguments.only is None or target.name in arguments.only.split(",")]
    if nginx() is None:
        print(NGINX_MISSING, file=sys.stderr)
        targets = [target for target in targets if target.name != "nginx"]
    try:
        results = report.Results(_rounds(targets, arguments))
    except (NotStarted, LoadFailed) as error:
        print(error, file=sys.stderr)
        return 1
    print(report.table(results, [target.name for target in targets]))
    print()
    print(report.circumstances(results, arguments.rounds, arguments.seconds))
    return 1 if any(result.errors for result in results.all) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round: tells that it works, not how fast it is")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="measured time of each run")
    parser.add_argument("--calls", type=int, default=5000, help="calls whose records are followed into the lake")
    parser.add_argument("--only", help="targets, comma-separated: " + ", ".join(target.name for target in TARGETS))
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.calls = 1, 1.5, 1000
    return arguments


def _missing() -> str | None:
    if len(os.sched_getaffinity(0)) < 2:
        return "two CPU cores are needed: one for the target, one for provider and load"
    for program, package in (("cc", "gcc"), ("taskset", "util-linux")):
        if shutil.which(program) is None:
            return f"{program} is missing; on Debian and Ubuntu: apt-get install {package}"
    return None


def _build() -> None:
    BUILD.mkdir(exist_ok=True)
    for program in ("provider", "load"):
        source, binary = HERE / f"{program}.c", BUILD / program
        if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
            subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", binary, source], check=True)


def _rounds(targets: list[Target], arguments: argparse.Namespace) -> Iterator[Result]:
    _raise_file_limit()
    load_core, target_core = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {load_core})
    with running(PROVIDER, load_core) as provider:
        bench = _Bench(provider, load_core, target_core, arguments)
        for number in range(arguments.rounds):
            order = targets if number % 2 == 0 else targets[::-1]
            for scenario in SCENARIOS:
                for target in order:
                    yield _shown(bench.quietest(target, scenario, number))
            for target in order:
                if target.delivers:
                    yield _shown(bench.deliver(target, number))


@dataclass(frozen=True, slots=True)
class _Bench:
    """Every run starts its target anew: none inherits another's full spool."""

    provider: Running
    load_core: int
    target_core: int
    arguments: argparse.Namespace

    def quietest(self, target: Target, scenario: str, number: int) -> Result:
        tries, patience_s = (1, QUICK_PATIENCE_S) if self.arguments.quick else (TRIES, PATIENCE_S)
        best: Result | None = None
        while tries and (best is None or best.others > OTHERS_MAX):
            tries -= 1
            processes.wait_for_quiet(OTHERS_MAX, patience_s)
            with running(target, self.target_core, self.provider.port) as server:
                result = measure(target.name, scenario, number, server, self.provider, self.load_core, self.arguments.seconds)
            best = result if best is None or result.others < best.others else best
        assert best is not None
        return best

    def deliver(self, target: Target, number: int) -> Result:
        with running(target, self.target_core, self.provider.port) as server:
            return deliver(target.name, number, server, self.load_core, self.arguments.calls)


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard > 0 else 65536, hard))


def _shown(result: Result) -> Result:
    load, cpu_s = result.load, sum(result.cpu_s.values())
    line = f"round {result.round + 1}  {result.scenario:9} {result.target:24} {load['rps']:9,.0f} calls/s"
    line += f"  p50 {load['lat']['p50'] / 1e3:8.3f} ms  CPU {cpu_s:6.2f} s  others {result.others:.2f}  errors {result.errors}"
    print(line, file=sys.stderr, flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
