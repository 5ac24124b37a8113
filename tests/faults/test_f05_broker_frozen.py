"""F5: the broker is frozen in mid-load: its port is open, and nothing answers."""

import asyncio

import pytest

from tests.conftest import Broker
from tests.faults.conftest import SetUp, Tell

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.timeout(300), pytest.mark.full]

FROZEN_S = 40.0


async def test_calls_go_on(set_up: SetUp, s3_lake: str, own_kafka: Broker, own_topic: str, tell: Tell) -> None:
    stage = set_up(s3_lake, kafka=own_kafka.bootstrap, topic=own_topic)
    await stage.start(consumers=2)
    await stage.called(300)
    own_kafka.pause()
    await asyncio.sleep(FROZEN_S)
    await stage.called(100)
    own_kafka.resume()
    await stage.called(300)
    verdict = (await stage.judged()).check()
    by_http = verdict.contents.by("h-")
    again = sum(count for attempt, count in verdict.contents.attempts.items() if attempt > 1)
    tell("F5", f"broker frozen for {FROZEN_S:.0f} s", verdict, f"{by_http} by HTTP, {again} recorded from a second copy")
    assert by_http > 0
