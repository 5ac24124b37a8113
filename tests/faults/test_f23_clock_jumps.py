"""F23: the proxy's wall clock jumps an hour on and back while it runs. The clock of its processes is a double, all else is real."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.conftest import Inside, SetUp, Tell

pytestmark = [pytest.mark.timeout(300), pytest.mark.full]

JUMPS_S = (3600, -3600, 0, 7200, 1)


async def test_nothing_lost_nothing_doubled_no_time_below_zero(set_up: SetUp, tmp_path: Path, inside: Inside, tell: Tell) -> None:
    stage = set_up(str(tmp_path / "lake"), proxy=inside.environment)
    await stage.start(workers=2)
    await stage.recorded(50)
    for offset_s in JUMPS_S:
        inside.tell(clock_s=offset_s)
        await stage.recorded(100)
        stage.proxy.kill_child("proxy.shipper")
        await asyncio.sleep(0)
    verdict = (await stage.judged()).check()
    hours = len({key.rpartition("/")[0] for key in verdict.contents.objects})
    seen = f"{verdict.contents.negative} times below zero; objects of {hours} hours"
    tell("F23", "wall clock of the proxy 1 h on, 1 h back, right, 2 h on, right; shipper killed each time", verdict, seen)
    assert verdict.contents.negative == 0
    assert hours > 1, "the clock did not jump"
