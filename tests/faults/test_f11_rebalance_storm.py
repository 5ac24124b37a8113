"""F11: consumers join and leave without end."""

import random
import time

import pytest

from tests.faults.conftest import SetUp, Tell

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.timeout(300), pytest.mark.full]

STORM_S = 60.0


async def test_it_goes_on_and_nothing_is_doubled(
    set_up: SetUp, s3_lake: str, kafka_bootstrap: str, kafka_topic: str, tell: Tell, dice: random.Random
) -> None:
    stage = set_up(s3_lake, kafka=kafka_bootstrap, topic=kafka_topic)
    await stage.start()
    until, changes = time.monotonic() + STORM_S, 0
    while time.monotonic() < until:
        guest = stage.member()
        await guest.ready()
        await stage.called(dice.randrange(20, 120))
        if dice.random() < 0.5:
            guest.kill()
        else:
            await stage.stopped(guest)
        changes += 2
    await stage.recorded(50)
    verdict = (await stage.judged()).check()
    tell("F11", f"consumers join and leave for {STORM_S:.0f} s", verdict, f"{changes} changes of the group")
    assert changes >= 6
