"""F1: SIGKILL of the whole proxy, workers and shipper with it, at any time under load, and another in its place."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.faults.conftest import SetUp, Tell

pytestmark = pytest.mark.timeout(400)

WORKERS = 2
PACE = "0.05"  # of the provider: streams last long enough to be cut off


async def test_what_was_accepted_outlives_the_proxy(set_up: SetUp, tmp_path: Path, tell: Tell, dice: random.Random, full: bool) -> None:
    """A part of it killed alone, again and again: tests/e2e/test_no_loss.py."""
    stage = set_up(str(tmp_path / "lake"))
    await stage.start(workers=WORKERS, pace=PACE)
    orphans: set[Path] = set()
    kills = 30 if full else 2
    for _ in range(kills):
        await stage.called(dice.randrange(10, 60))
        await asyncio.sleep(dice.uniform(0, 0.1))
        stage.proxy.kill()
        orphans |= set(stage.spools)
        await stage.next_proxy()
    await stage.called(100)
    verdict = (await stage.judged()).check_records()
    for spool in orphans:
        await stage.adopted(spool)
    cut = [name for name, outcome in stage.load.outcomes.items() if not outcome.whole and outcome.status is not None]
    vanished = [name for name in cut if not verdict.contents.calls[name]]
    assert not vanished, f"{len(vanished)} of {len(cut)} calls that were cut off left no trace: {vanished[:5]}"
    ends = verdict.contents.ends
    seen = f"{len(cut)} calls cut off after their head; ends: {', '.join(f'{end} {count}' for end, count in sorted(ends.items()))}"
    tell("F1", f"SIGKILL of proxy, {WORKERS} workers and shipper at once, {kills} times", verdict, seen)
    assert set(ends) <= {"complete", "interrupted"}
