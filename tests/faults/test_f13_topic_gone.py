"""F13: retention passes the lake's tail; the topic is deleted and made again, while nobody looks and under a running consumer."""

import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from clearpane.contract.identifiers import Log
from clearpane.contract.lake import head_key
from clearpane.store import Store
from tests.conftest import PARTITIONS
from tests.faults.conftest import SetUp, Tell, make_topic

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.timeout(300), pytest.mark.full]


async def tail(lake: str, topic: str, partition: int) -> int:
    """Where the lake's chain ends."""
    head = await Store.open(lake).get(head_key(Log.of_partition(topic, partition).name))
    return int(orjson.loads(head)["end"])


async def delete_records(bootstrap: str, topic: str, partition: int, before: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()


async def make_again(bootstrap: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topic])
    finally:
        await admin.close()
    await make_topic(bootstrap, topic)


async def test_retention_stops_its_partition_alone(set_up: SetUp, s3_lake: str, kafka_bootstrap: str, kafka_topic: str, tell: Tell) -> None:
    stage = set_up(s3_lake, kafka=kafka_bootstrap, topic=kafka_topic)
    await stage.start()
    await stage.recorded(100)
    await stage.stopped(stage.members[0])
    end = await tail(s3_lake, kafka_topic, 0)
    await stage.called(200)
    await stage.counted("clearpane_shipper_sent_total", 100, path="kafka")
    await delete_records(kafka_bootstrap, kafka_topic, 0, end + 10)
    await stage.member(intake=True).ready()
    await stage.said(f"to {end + 9} before they reached the lake", 1)
    await stage.recorded(200)  # by the other partitions
    await stage.stopped(stage.members[-1])
    await stage.member(intake=True, incarnation=1).ready()
    await stage.recorded(200)
    verdict = await stage.judged(timeout_s=20.0)
    tell("F13", "Kafka deletes 10 messages before they are read", verdict, "the partition stopped in words; then incarnation raised")
    assert not verdict.doubled
    assert not verdict.findings
    assert 1 <= len(verdict.lost) <= 10  # of ten messages some may be `started`


@pytest.mark.parametrize("running", [False, True])
async def test_a_topic_made_again(running: bool, set_up: SetUp, s3_lake: str, kafka_bootstrap: str, kafka_topic: str, tell: Tell) -> None:
    stage = set_up(s3_lake, kafka=kafka_bootstrap, topic=kafka_topic)
    await stage.start()
    await stage.called(300)
    await stage.quiet()
    await stage.all_recorded()
    if not running:
        await stage.stopped(stage.members[0])
    await make_again(kafka_bootstrap, kafka_topic)
    stage.go_on()
    if not running:
        await stage.called(600)  # more than the lake holds of the old one
        await stage.member(intake=True).ready()
    await stage.said("raise `incarnation`", PARTITIONS, timeout_s=120)
    await stage.stopped(stage.members[-1])
    await stage.member(intake=True, incarnation=1).ready()
    await stage.called(100)
    verdict = await stage.judged()
    where = "under a running consumer" if running else "while no consumer runs"
    tell("F13", f"topic deleted and made again {where}", verdict, "all partitions stopped in words; incarnation raised")
    verdict.check()
