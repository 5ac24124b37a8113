"""F12: the group's offsets are reset to anywhere, or the group is new: the position is the lake's."""

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.conftest import PARTITIONS
from tests.faults.conftest import SetUp, Tell

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.timeout(300), pytest.mark.full]


async def reset(bootstrap: str, topic: str, share: float) -> None:
    """What an operator does; the group has its topic's name, and no member is alive."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=topic, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.commit({tp: round(end * share) for tp, end in ends.items()})
    finally:
        await consumer.stop()


async def test_the_position_is_the_lakes(set_up: SetUp, s3_lake: str, kafka_bootstrap: str, kafka_topic: str, tell: Tell) -> None:
    stage = set_up(s3_lake, kafka=kafka_bootstrap, topic=kafka_topic)
    await stage.start()
    for share in (0.0, 0.4, 1.0, 3.0, None):
        await stage.recorded(60)
        await stage.stopped(stage.members[-1])
        if share is None:
            await stage.member(intake=True, kafka_group=f"{kafka_topic}-new").ready()
        else:
            await reset(kafka_bootstrap, kafka_topic, share)
            await stage.member(intake=True).ready()
    await stage.recorded(60)
    verdict = (await stage.judged()).check()
    tell("F12", "group offsets reset to 0, the middle, the end, beyond it; a group that never was", verdict)
