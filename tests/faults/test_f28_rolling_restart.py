"""F28: consumers and the proxy are replaced one by one under load, and messages of other versions are on the topic."""

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from tests.conftest import PARTITIONS
from tests.faults.conftest import SetUp, Tell

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.timeout(300), pytest.mark.full]

OTHERS = (
    orjson.dumps({"schema": "call.v2", "event": "completed", "request_id": "0199a1b2-c3d4-7e5f-8091-a2b3c4d5e6f7", "attempt": 1}),
    orjson.dumps({"schema": "call.v1", "event": "retried", "request_id": "0199a1b2-c3d4-7e5f-8091-a2b3c4d5e6f7", "attempt": 1}),
    b"not even JSON",
)


async def publish(bootstrap: str, topic: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        for partition in range(PARTITIONS):
            for value in OTHERS:
                await producer.send_and_wait(topic, value, partition=partition)
    finally:
        await producer.stop()


async def test_nothing_is_noticed(set_up: SetUp, s3_lake: str, kafka_bootstrap: str, kafka_topic: str, tell: Tell) -> None:
    stage = set_up(s3_lake, kafka=kafka_bootstrap, topic=kafka_topic)
    await stage.start(consumers=2, workers=2)
    await stage.recorded(100)
    await publish(kafka_bootstrap, kafka_topic)
    for number in range(4):
        old = stage.members[number]
        await stage.stopped(old)
        await stage.member(intake=number % 2 == 0).ready()  # in the place of the one that went
        await stage.recorded(100)
    await stage.replace_proxy()
    await stage.recorded(200)
    verdict = (await stage.judged()).check_records()
    refused = verdict.calls - verdict.whole
    ends = ", ".join(f"{end} {count}" for end, count in sorted(verdict.contents.ends.items()))
    seen = f"{refused} calls without an answer between the two proxies; ends: {ends}; {verdict.contents.poison} messages kept raw"
    tell("F28", "4 consumers and the proxy replaced under load; 12 messages of other versions", verdict, seen)
    assert verdict.contents.poison == PARTITIONS * len(OTHERS)
    assert set(verdict.contents.ends) == {"complete"}, "a call that was taken was broken off within its grace time"
    assert verdict.recorded == verdict.whole
