"""The services that all other tests lean on are real, and behave as such."""

import os

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store

from tests.conftest import Broker


async def test_topic_is_fresh_and_has_four_partitions(kafka_bootstrap: str, kafka_topic: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap)
    await producer.start()
    try:
        sent = [await producer.send_and_wait(kafka_topic, b"x", partition=partition) for partition in range(4)]
        assert [found.offset for found in sent] == [0, 0, 0, 0]
        assert len(await producer.partitions_for(kafka_topic)) == 4
    finally:
        await producer.stop()


async def test_killed_broker_comes_back_with_what_it_had_acknowledged(own_kafka: Broker) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=own_kafka.bootstrap, acks="all")
    await producer.start()
    await producer.send_and_wait("kept", b"before", partition=0)
    await producer.stop()
    before = own_kafka.bootstrap
    own_kafka.kill()
    await own_kafka.start()
    assert own_kafka.bootstrap == before
    consumer = AIOKafkaConsumer(bootstrap_servers=own_kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition("kept", 0)])
        assert (await consumer.getone()).value == b"before"
    finally:
        await consumer.stop()


def test_store_creates_once(s3_lake: str) -> None:
    bucket, _, prefix = s3_lake.removeprefix("s3://").partition("/")
    store = S3Store(bucket, prefix=prefix, endpoint=os.environ["AWS_ENDPOINT_URL_S3"], client_options={"allow_http": True})
    store.put("key", b"first", mode="create")
    with pytest.raises(AlreadyExistsError):
        store.put("key", b"second", mode="create")
    assert bytes(store.get("key").bytes()) == b"first"
