"""F22: a worker may open 256 files, and many more clients come than that."""

import resource
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.system import Load
from tests.faults.conftest import SetUp, Tell

pytestmark = [pytest.mark.timeout(300), pytest.mark.full]

FILES, CLIENTS, CALLS = 256, 400, 2000
# Refused with words, never broken off.
REFUSALS = {503}


async def test_what_is_over_the_bound_waits_or_is_refused_and_then_all_is_well(set_up: SetUp, tmp_path: Path, tell: Tell) -> None:
    stage = set_up(str(tmp_path / "lake"))
    await stage.start()
    await stage.called(50)
    (worker,) = stage.proxy.children("proxy.worker")
    _, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (FILES, hard))
    crowd = Load(stage.load.port, calls=CALLS, connections=CLIENTS)
    crowd._next, crowd.calls = 10**6, 10**6 + CALLS  # names of their own
    await crowd.run()
    statuses = Counter(outcome.status for outcome in crowd.outcomes.values())
    await stage.called(50)
    before = set(stage.load.outcomes)
    await stage.called(100)
    after = {name: outcome for name, outcome in stage.load.outcomes.items() if name not in before}
    stage.load.outcomes |= crowd.outcomes
    verdict = (await stage.judged()).check_records()
    assert stage.proxy.children("proxy.worker") == [worker], "the worker did not live through it"
    said = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items(), key=str))
    tell("F22", f"{CLIENTS} clients at once, the worker may open {FILES} files", verdict, f"their answers: {said}")
    assert set(statuses) <= {200, *REFUSALS}
    assert statuses[200] > 0
    assert all(outcome.whole for outcome in crowd.outcomes.values())
    assert {(outcome.status, outcome.whole) for outcome in after.values()} == {(200, True)}
