"""F10: a consumer is frozen in the middle of a PUT for longer than its session, another takes over, and the first wakes up."""

import asyncio
import signal
from urllib.parse import unquote

import pytest

from clearpane.store import Store
from tests.faults.conftest import SetUp, Tell
from tests.faults.front import Front

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.timeout(240)]

STORE_S = 60.0


async def exists(lake: str, key: str) -> None:
    store = Store.open(lake)
    async with asyncio.timeout(STORE_S):
        while await store.size(key) is None:
            await asyncio.sleep(0.05)


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
    await exists(s3_lake, unquote(put.path[put.path.index("/calls/") + 1 :]))  # or is made by the other: the session of the first is over
    await stage.recorded(60)
    put.hold.set()
    zombie.signal(signal.SIGCONT)
    async with asyncio.timeout(STORE_S):
        status = await put.stored.get()  # the zombie itself may give the partition up before it hears of it
    await stage.recorded(30)
    verdict = (await stage.judged()).check()
    assert zombie.alive
    tell("F10", f"consumer frozen in mid-PUT past its session, its PUT arrives {arrives}", verdict, f"the store answered it with {status}")
    assert status == (200 if arrives == "first" else 412)
