"""Does trouble on the log side reach a caller? The same calls without a fault, with the shipper stopped, with the recorder
stopped, with the disk of the spool full, and with Kafka frozen; their latencies side by side.

Calls are offered at a fixed rate, so a stall of the proxy counts for every call that it delays. Every run starts Clearpane anew,
with shipper and consumer, all on one core. A fault that does not bite ends the run: its figures would prove nothing.
"""

import argparse
import os
import re
import signal
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from bench import circumstances, disk, machine, processes, report
from bench.peers.install import Unavailable
from bench.scenarios import LoadFailed, outcome, records, start_load, wait_for_records
from bench.serving import DOCUMENT, NotStarted, Running, running
from bench.targets import DELIVERING, DELIVERING_BY_KAFKA, PROVIDER, Target

# A sixth of what a core carries with all of Clearpane on it.
JSON = ("-c 32 -p 300 -w 3", "fake")
STREAMS = ("-c 50 -r 1 -w 1 -s", "fake-c40-d100")
# No new record for so long: the rest will not come.
SILENCE_S = 10.0
Run = dict[str, Any]
Fault = Callable[[Running], AbstractContextManager[None]]
Plan = dict[str, tuple[Target, Fault]]


class NoFault(Exception):
    """The fault that was to be measured was not there."""


def main() -> int:
    arguments = _arguments()
    if problem := machine.missing():
        print(problem, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    machine.build()
    machine.raise_file_limit()
    load_core, target_core = machine.cores()
    os.sched_setaffinity(0, {load_core})
    try:
        with disk.small() as place, running(PROVIDER, load_core) as provider:
            plan, missing = _plan(place)
            runs = list(_rounds(plan, place, provider, (load_core, target_core), arguments))
    except (NoFault, NotStarted, LoadFailed) as error:
        print(error, file=sys.stderr)
        return 1
    facts = circumstances.observe([], missing, arguments.rounds, arguments.seconds)
    shown = f"{_table(runs)}\n\n{place.described}\n{circumstances.head(facts)}"
    print(shown)
    if arguments.write_docs:
        report.write(DOCUMENT, "faults", shown)
    return 1 if any(run["errors"] for run in runs) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="measured time of each run")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/performance.md")
    return parser.parse_args()


def _plan(place: disk.Place) -> tuple[Plan, dict[str, str]]:
    """What is measured, and what can't be, with the reason."""
    none: Fault = lambda _: nullcontext()  # noqa: E731
    plan: Plan = {
        "none": (DELIVERING, none),
        "shipper stopped": (DELIVERING, partial(stopped, "shipper")),
        "recorder stopped": (DELIVERING, partial(stopped, "recorder")),
        "disk full": (DELIVERING, partial(full, place)),
        "none, by Kafka": (DELIVERING_BY_KAFKA, none),
        "Kafka frozen": (DELIVERING_BY_KAFKA, partial(stopped, "broker")),
    }
    try:
        DELIVERING_BY_KAFKA.home()
    except Unavailable as reason:
        return {name: each for name, each in plan.items() if each[0] is DELIVERING}, {"Kafka": str(reason)}
    return plan, {}


def _rounds(plan: Plan, place: disk.Place, provider: Running, cores: tuple[int, int], arguments: argparse.Namespace) -> Iterator[Run]:
    for number in range(arguments.rounds):
        for name in plan if number % 2 == 0 else reversed(plan):
            run = _run(*plan[name], place, provider, cores, arguments.seconds)
            print(f"round {number + 1}  {_row(name, [run])}", file=sys.stderr, flush=True)
            yield {"fault": name, **run}


def _run(target: Target, fault: Fault, place: disk.Place, provider: Running, cores: tuple[int, int], seconds: float) -> Run:
    load_core, target_core = cores
    with (
        tempfile.TemporaryDirectory(dir=place.folder, ignore_cleanup_errors=True) as data,
        running(target, target_core, provider.port, Path(data)) as server,
    ):
        wait_for_records(server.work / "lake", 1)  # of the call that showed that the target serves
        with fault(server):
            found = [outcome(start_load(f"{load} -t {seconds}", server, load_core, model)) for load, model in (JSON, STREAMS)]
        json_load, stream_load = found
        calls = 1 + sum(load["ended"] for load in found)
        return {
            "lat": json_load["lat"],
            "ttfb": stream_load["ttfb"],
            "chunk": stream_load["chunk"],
            "errors": sum(load[kind] for load in found for kind in ("bad_status", "broken", "unfinished", "mismatched")),
            "calls": calls,
            "arrived": _arrived(server, calls),
            "dropped": _dropped(server),
        }


def _arrived(server: Running, calls: int) -> int:
    """Records in the lake once it holds those of all calls, or after a while without a new one."""
    seen, since = -1, time.monotonic()
    while seen < calls and time.monotonic() - since < SILENCE_S:
        if (now := records(server.work / "lake")) > seen:
            seen, since = now, time.monotonic()
        time.sleep(0.25)
    return seen


@contextmanager
def stopped(role: str, server: Running) -> Iterator[None]:
    """The processes of one role do not run meanwhile (SIGSTOP)."""
    pids = [pid for pid in processes.tree(server.roots, processes.table()) if processes.role(pid) == role]
    if not pids:
        raise NoFault(f"there is no {role} to stop")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    before = processes.cpu_by_role(server.roots, processes.table())[role]
    try:
        yield
        if processes.cpu_by_role(server.roots, processes.table())[role] > before:
            raise NoFault(f"the {role} ran although it was stopped")
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def full(place: disk.Place, server: Running) -> Iterator[None]:
    """The spool can write nothing meanwhile; it has to say so itself."""
    with place.full(server):
        yield
        if not _dropped(server):
            raise NoFault("the spool dropped nothing although its disk was full")


def _dropped(server: Running) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.fill['admin']}/metrics", timeout=10) as answer:
        found = re.findall(r"^clearpane_proxy_spool_dropped_records_total\{.*\} (\S+)", answer.read().decode(), re.MULTILINE)
    return round(sum(map(float, found)))


def _table(runs: list[Run]) -> str:
    titles = (
        "fault",
        "calls: p50 / p99 / max, ms",
        "first byte p50 / p99, ms",
        "chunk p50 / p99, ms",
        "errors",
        "records in the lake",
        "dropped and counted",
    )
    names = dict.fromkeys(run["fault"] for run in runs)
    return report.markdown([titles, *(_row(name, [run for run in runs if run["fault"] == name]) for name in names)])


def _row(name: str, runs: list[Run]) -> tuple[str, ...]:
    kinds = (("lat", ("p50", "p99", "max")), ("ttfb", ("p50", "p99")), ("chunk", ("p50", "p99")))
    latencies = [" / ".join(_median_ms(runs, kind, quantile) for quantile in quantiles) for kind, quantiles in kinds]
    arrived = f"{sum(run['arrived'] for run in runs):,} of {sum(run['calls'] for run in runs):,}"
    errors, dropped = (f"{sum(run[kind] for run in runs):,}" for kind in ("errors", "dropped"))
    return (name, *latencies, errors, arrived, dropped)


def _median_ms(runs: list[Run], kind: str, quantile: str) -> str:
    measured = [run[kind][quantile] for run in runs if run[kind]["n"]]
    return f"{statistics.median(measured) / 1e3:,.2f}" if measured else "?"


if __name__ == "__main__":
    sys.exit(main())
