"""A long load with a random fault every few seconds, and the oracle at its end. `make soak` starts the services.

    python -m tests.faults.soak --calls 200000 --seed 1 --out FILE

Exit code 0: nothing lost, nothing doubled, the chains verify, no call broke without a worker's death, and memory and
descriptors of the processes that lived all the time stayed flat.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from tests.conftest import Broker
from tests.e2e.system import Outcome, free_port
from tests.faults.conftest import make_topic
from tests.faults.front import Front
from tests.faults.stage import Stage, Verdict
from tests.faults.table import about, write
from tests.faults.trouble import Trouble
from tests.faults.wire import Wire

TOPIC = "calls"
WORKERS, CONNECTIONS = 3, 24
SETTLE_S = 300.0
SAMPLE_S = 1.0
SAMPLES_LEAST = 120  # fewer say nothing about growth
RSS_GROWTH_MAX, RSS_SLACK_KIB = 1.2, 16 << 10
DESCRIPTORS_GROWTH_MAX = 20
DEATH_S = 3.0  # a worker's death explains what broke so long before or after it


@dataclass
class Samples:
    """RSS (KiB) and open descriptors of the processes that live all the time, second by second."""

    stage: Stage
    found: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    async def run(self) -> None:
        """Until cancelled."""
        workers = self.stage.proxy.children("proxy.worker")
        steady = {"proxy": self.stage.proxy.process.pid, "worker": workers[0], "consumer": self.stage.members[0].process.pid}
        while True:
            for role, pid in steady.items():
                with contextlib.suppress(OSError):
                    self.found[role].append(_sample(pid))
            await asyncio.sleep(SAMPLE_S)

    def summary(self) -> dict[str, Any]:
        return {role: _flatness(samples) for role, samples in self.found.items()}


def _sample(pid: int) -> tuple[int, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    rss_kib = int(next(line for line in lines if line.startswith("VmRSS")).split()[1])
    return rss_kib, sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _flatness(samples: list[tuple[int, int]]) -> dict[str, Any]:
    """The means of the four quarters; `flat`: the last against the second, since the first warms up. None: too short to tell."""
    size = max(1, len(samples) // 4)
    quarters = [samples[start : start + size] for start in range(0, size * 4, size) if samples[start : start + size]]
    rss = [round(mean(kib for kib, _ in quarter)) for quarter in quarters]
    descriptors = [round(mean(count for _, count in quarter)) for quarter in quarters]
    flat = None
    if len(samples) >= SAMPLES_LEAST:
        flat = rss[3] <= rss[1] * RSS_GROWTH_MAX + RSS_SLACK_KIB and descriptors[3] <= descriptors[1] + DESCRIPTORS_GROWTH_MAX
    return {"samples": len(samples), "rss_kib": rss, "descriptors": descriptors, "flat": flat}


def unexplained(outcomes: dict[str, Outcome], deaths: list[float]) -> list[str]:
    """Calls that broke while no worker died."""

    def explained(outcome: Outcome) -> bool:
        return any(outcome.began_s - DEATH_S <= death <= outcome.began_s + outcome.duration_s + DEATH_S for death in deaths)

    return [name for name, outcome in outcomes.items() if not (outcome.whole and outcome.status == 200) and not explained(outcome)]


def report(verdict: Verdict, trouble: Trouble, samples: Samples, outcomes: dict[str, Outcome], seed: int, seconds: float) -> dict[str, Any]:
    contents = verdict.contents
    return {
        "seed": seed,
        "seconds": round(seconds),
        "calls": verdict.calls,
        "whole": verdict.whole,
        "broken_without_a_death": unexplained(outcomes, trouble.worker_deaths),
        "recorded": verdict.recorded,
        "ends": dict(contents.ends),
        "lost": verdict.lost,
        "doubled": verdict.doubled,
        "findings": verdict.findings,
        "objects": len(contents.objects),
        "by_kafka": contents.by("k-"),
        "by_http": contents.by("h-"),
        "attempts": dict(contents.attempts),
        "faults": dict(trouble.counts),
        "processes": samples.summary(),
    }


def words(found: dict[str, Any]) -> str:
    """The report for the docs."""
    faults = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in sorted(found["faults"].items()))
    second_copies = sum(count for attempt, count in found["attempts"].items() if int(attempt) > 1)
    outcome = (
        f"{about()}, seed {found['seed']}: {found['calls']:,} calls in {found['seconds'] / 60:.0f} minutes, {len(found['lost'])} lost, "
        f"{len(found['doubled'])} doubled, {len(found['findings'])} findings of `clearpane verify`, "
        f"{found['calls'] - found['whole']} calls broken by the death of their worker, {len(found['broken_without_a_death'])} without one."
    )
    ways = (
        f"{found['recorded']:,} records in {found['objects']:,} objects: {found['by_kafka']:,} by Kafka, {found['by_http']:,} by HTTP; "
        f"{second_copies:,} from a second copy. Faults: {faults}."
    )
    head = ["| process that lived all the time | RSS, MiB, by quarter | descriptors, by quarter |", "| --- | --- | --- |"]
    lines = [outcome, "", ways, "", *head]
    for role, process in found["processes"].items():
        rss = ", ".join(f"{kib / 1024:.0f}" for kib in process["rss_kib"])
        lines.append(f"| {role} | {rss} | {', '.join(map(str, process['descriptors']))} |")
    return "\n".join(lines)


def passed(found: dict[str, Any]) -> bool:
    flat = all(process["flat"] is not False for process in found["processes"].values())
    return flat and not any(found[name] for name in ("lost", "doubled", "findings", "broken_without_a_death"))


async def soak(calls: int, seed: int, folder: Path, environ: dict[str, str]) -> dict[str, Any]:
    front = Front(environ["AWS_ENDPOINT_URL_S3"], environ["AWS_SECRET_ACCESS_KEY"], seed)
    port = free_port()
    wire = Wire("127.0.0.1", port)
    await front.start()
    await wire.start()
    broker_folder = folder / "kafka"
    broker_folder.mkdir()
    (broker_folder / "ports.json").write_text(json.dumps({"port": port, "advertised": wire.port}))
    broker = Broker(broker_folder, environ)
    lake = f"{environ['CLEARPANE_TEST_S3']}/soak-{seed}-{os.getpid()}"
    stage = Stage(folder, lake, kafka=f"127.0.0.1:{wire.port}", topic=TOPIC, store={"AWS_ENDPOINT_URL_S3": front.url})
    stage.load.calls, stage.load.connections, stage.load.pause_s = calls, CONNECTIONS, 0.0
    trouble = Trouble(stage, broker, wire, front, random.Random(seed))
    samples = Samples(stage)
    began = time.monotonic()
    try:
        await broker.start()
        await make_topic(f"127.0.0.1:{wire.port}", TOPIC)
        await stage.start(consumers=2, workers=WORKERS, flush_seconds=1.0, object_records_max=500)
        watching = asyncio.create_task(samples.run())
        await trouble.run(stage.loading)
        verdict = await stage.judged(SETTLE_S)
        watching.cancel()
        return report(verdict, trouble, samples, stage.load.outcomes, seed, time.monotonic() - began)
    finally:
        await asyncio.to_thread(stage.stop)
        await wire.stop()
        await front.stop()
        broker.kill()


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.faults.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file for the oracle's words, JSON")
    parser.add_argument("--write-docs", action="store_true", help="put it into docs/reliability.md, if it passed")
    arguments = parser.parse_args()
    environ = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("CLEARPANE_")]:
        del os.environ[name]  # what is started must see its own settings only
    if "CLEARPANE_TEST_S3" not in environ:
        parser.error("the services are not there: `make soak` starts them")
    with tempfile.TemporaryDirectory(prefix="clearpane-soak-", ignore_cleanup_errors=True) as folder:
        found = asyncio.run(soak(arguments.calls, arguments.seed, Path(folder), environ))
        if not passed(found) and arguments.out:
            _keep_logs(Path(folder), arguments.out.with_suffix(".logs"))
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    if passed(found) and arguments.write_docs:
        write(words(found), "soak")
    print("passed" if passed(found) else "FAILED")
    return 0 if passed(found) else 1


def _keep_logs(folder: Path, to: Path) -> None:
    to.mkdir(exist_ok=True)
    for log in folder.glob("*.log"):
        (to / log.name).write_bytes(log.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
