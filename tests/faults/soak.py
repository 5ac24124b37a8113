"""A long load with a random fault every few seconds, and the oracle at its end. `make soak` starts the services.

    python -m tests.faults.soak --calls 200000 --seed 1 --out FILE

Exit code 0: nothing lost, nothing doubled, the chains verify, no call broke without a worker's death, and memory and
descriptors of every process stayed flat.
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
from pathlib import Path
from typing import Any

from tests.conftest import Broker
from tests.e2e.system import Outcome, free_port
from tests.faults.conftest import make_topic
from tests.faults.front import Front
from tests.faults.growth import Growth
from tests.faults.stage import Stage, Verdict
from tests.faults.table import about, write
from tests.faults.trouble import Trouble
from tests.faults.wire import Wire

TOPIC = "calls"
WORKERS, CONNECTIONS = 3, 64
# Of a real model's pace: an answer takes 0.2 s, so that a death finds calls and streams under way.
PACE = "0.05"
# Else all of them would soon be at the one worker that is never killed.
CALLS_PER_CONNECTION = 20
SETTLE_S = 300.0
DEATH_S = 3.0  # a worker's death explains what broke so long before or after it


def unexplained(outcomes: dict[str, Outcome], deaths: list[float]) -> list[str]:
    """Calls that broke while no worker died."""

    def explained(outcome: Outcome) -> bool:
        return any(outcome.began_s - DEATH_S <= death <= outcome.began_s + outcome.duration_s + DEATH_S for death in deaths)

    return [name for name, outcome in outcomes.items() if not (outcome.whole and outcome.status == 200) and not explained(outcome)]


def report(verdict: Verdict, trouble: Trouble, growth: Growth, outcomes: dict[str, Outcome], seed: int, seconds: float) -> dict[str, Any]:
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
        "processes": growth.summary(),
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
    head = [
        "| process | lives | RSS, MiB: lows of the quarters of the longest life, highest | descriptors: the same |",
        "| --- | ---: | --- | --- |",
    ]
    return "\n".join((outcome, "", ways, "", *head, *(_row(role, process) for role, process in found["processes"].items())))


def _row(role: str, process: dict[str, Any]) -> str:
    rss = ", ".join(f"{kib / 1024:.0f}" for kib in (*process["rss_kib"], process["rss_kib_max"]))
    descriptors = ", ".join(map(str, (*process["descriptors"], process["descriptors_max"])))
    return f"| {role} | {process['lives']} | {rss} | {descriptors} |"


def passed(found: dict[str, Any]) -> bool:
    flat = all(process["flat"] is not False for process in found["processes"].values())
    return flat and not any(found[name] for name in ("lost", "doubled", "findings", "broken_without_a_death"))


async def soak(calls: int, seed: int, folder: Path, environ: dict[str, str]) -> dict[str, Any]:
    async with contextlib.AsyncExitStack() as stack:
        store = Front(environ["AWS_ENDPOINT_URL_S3"], environ["AWS_SECRET_ACCESS_KEY"], seed)
        await store.start()
        stack.push_async_callback(store.stop)
        broker, wire = await _broker(folder, environ, stack)
        lake = f"{environ['CLEARPANE_TEST_S3']}/soak-{seed}-{os.getpid()}"
        kafka = f"127.0.0.1:{wire.port}"
        stage = Stage(folder, lake, kafka=kafka, topic=TOPIC, store={"AWS_ENDPOINT_URL_S3": store.url})
        stage.load.calls, stage.load.connections, stage.load.pause_s = calls, CONNECTIONS, 0.0
        stage.load.calls_per_connection = CALLS_PER_CONNECTION
        intake = Front(f"http://127.0.0.1:{stage.intake_port}", seed=seed)
        await intake.start()
        stack.push_async_callback(intake.stop)
        stack.push_async_callback(asyncio.to_thread, stage.stop)
        return await _played(stage, Trouble(stage, broker, wire, store, intake, random.Random(seed)), intake.url, seed)


async def _broker(folder: Path, environ: dict[str, str], stack: contextlib.AsyncExitStack) -> tuple[Broker, Wire]:
    """A broker of its own that names the wire as its address."""
    port = free_port()
    wire = Wire("127.0.0.1", port)
    await wire.start()
    stack.push_async_callback(wire.stop)
    (folder / "kafka").mkdir()
    (folder / "kafka" / "ports.json").write_text(json.dumps({"port": port, "advertised": wire.port}))
    broker = Broker(folder / "kafka", environ)
    stack.callback(broker.kill)
    await broker.start()
    await make_topic(f"127.0.0.1:{wire.port}", TOPIC)
    return broker, wire


async def _played(stage: Stage, trouble: Trouble, intake: str, seed: int) -> dict[str, Any]:
    began = time.monotonic()
    growth = Growth(lambda: [stage.proxy.process.pid, *(member.process.pid for member in stage.members)])
    await stage.start(consumers=2, workers=WORKERS, pace=PACE, intake=intake, flush_seconds=1.0, object_records_max=500)
    watching = asyncio.create_task(growth.run())
    try:
        await trouble.run(stage.loading)
        verdict = await stage.judged(SETTLE_S)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return report(verdict, trouble, growth, stage.load.outcomes, seed, time.monotonic() - began)


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
