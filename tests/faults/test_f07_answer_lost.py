"""F7: the broker appends what it gets, and its answers are lost: every record under way is in doubt."""

import pytest

from tests.faults.conftest import SetUp, Tell
from tests.faults.wire import Wire

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.timeout(300), pytest.mark.full]

IN_DOUBT = "clearpane_shipper_kafka_in_doubt_total"


async def test_second_copies_are_dropped(set_up: SetUp, s3_lake: str, wire: Wire, tell: Tell) -> None:
    stage = set_up(s3_lake, kafka=f"127.0.0.1:{wire.port}", topic="calls")
    await stage.start()
    for _ in range(3):
        await stage.counted("clearpane_shipper_sent_total", 100, path="kafka")
        wire.down.silence()
        await stage.counted(IN_DOUBT, 1)
        wire.reset()
        wire.down.speak()
        await stage.counted("clearpane_shipper_kafka_producers_total", 1, outcome="started")
    verdict = (await stage.judged()).check()
    dropped = await stage.members[0].metric("clearpane_consumer_copies_dropped_total")
    doubt = await stage.proxy_metric(IN_DOUBT)
    tell("F7", "answers of the broker lost three times", verdict, f"{doubt:.0f} records in doubt, {dropped:.0f} second copies dropped")
    assert doubt > 0
    assert dropped > 0
