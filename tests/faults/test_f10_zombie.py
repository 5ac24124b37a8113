"""F10: a consumer is frozen in the middle of a PUT for longer than its session, another takes over, and the first wakes up."""

import asyncio
import signal

import pytest

from tests.faults.conftest import SetUp, Tell
from tests.faults.front import Front

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.timeout(240)]


@pytest.mark.parametrize("arrives", [pytest.param("first", marks=pytest.mark.full), "last"])
async def test_one_copy_is_left(
    arrives: str, set_up: SetUp, s3_lake: str, front: Front, kafka_bootstrap: str, kafka_topic: str, tell: Tell
) -> None:
    """Its PUT reaches the store before the other's, or long after."""
    stage = set_up(s3_lake, kafka=kafka_bootstrap, topic=kafka_topic)
    put = front.add(name="held", hold=asyncio.Event(), times=1)
    assert put.hold is not None
    await stage.start(store={"AWS_ENDPOINT_URL_S3": front.url})
    zombie = stage.members[0]
    await put.met.wait()
    zombie.signal(signal.SIGSTOP)
    if arrives == "first":
        put.hold.set()
    other = stage.member(intake=False)
    await other.ready()
    await stage.recorded(60)  # by the other: the session of the first is over
    put.hold.set()
    zombie.signal(signal.SIGCONT)
    await stage.recorded(30)
    verdict = (await stage.judged()).check()
    adopted = await zombie.metric("clearpane_consumer_objects_adopted_total") + await other.metric(
        "clearpane_consumer_objects_adopted_total"
    )
    assert zombie.alive
    tell("F10", f"consumer frozen in mid-PUT past its session, its PUT arrives {arrives}", verdict, f"{adopted:.0f} objects adopted")
    assert adopted >= 1
