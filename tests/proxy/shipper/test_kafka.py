"""The way through a real Kafka, and what happens to it when the broker dies, freezes or refuses."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections import defaultdict
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from prometheus_client import REGISTRY

from clearpane.contract.identifiers import partition_of
from clearpane.runtime.handover import Handover
from proxy.shipper import metrics

pytestmark = pytest.mark.kafka

PARTITIONS = 4


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture(autouse=True)
def kafka_is_not_known_to_be_up() -> None:
    """The gauge is the process's: what an earlier test left in it says nothing."""
    metrics.KAFKA_UP.set(0)


def sent() -> float:
    return value("clearpane_shipper_sent_total", path="kafka")


async def topic_of(bootstrap: str, name: str, **config: str) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, num_partitions=PARTITIONS, replication_factor=1, topic_configs=config)])
    finally:
        await admin.close()
    return name


async def read_all(bootstrap: str, topic: str) -> list[Any]:
    """Every message that is in the topic now."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", max_partition_fetch_bytes=16 << 20)
    await consumer.start()
    found: list[Any] = []
    try:
        while not consumer.assignment():
            await asyncio.sleep(0.01)
        ends = await consumer.end_offsets(list(consumer.assignment()))
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for messages in (await consumer.getmany(timeout_ms=200)).values():
                found.extend(messages)
    finally:
        await consumer.stop()
    return found


def records(messages: list[Any], event: str = "completed") -> list[dict[str, Any]]:
    return [envelope for message in messages if (envelope := orjson.loads(message.value))["event"] == event]


def check_copies(messages: list[Any], ids: list[str]) -> None:
    """Every record is there; copies of one lie in one partition, and all but the first state a higher attempt."""
    copies: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for message in messages:
        envelope = orjson.loads(message.value)
        if envelope["event"] == "completed":
            copies[envelope["request_id"]].append((message.partition, envelope["attempt"]))
    assert set(copies) == set(ids)
    for request_id, found in copies.items():
        assert {partition for partition, _ in found} == {partition_of(request_id, PARTITIONS)}
        attempts = [attempt for _, attempt in found]
        assert len(set(attempts)) == len(attempts), "two copies with the same attempt cannot be told apart"


async def test_messages_have_the_form_of_the_contract(lab: Any, kafka_bootstrap: str, kafka_topic: str) -> None:
    worker, before = lab.worker(), sent()
    async with lab.shipping(lab.settings(kafka=kafka_bootstrap, topic=kafka_topic)):
        for _ in range(300):
            worker.call()
        await lab.until(lambda: sent() == before + 300, 30)
    messages = await read_all(kafka_bootstrap, kafka_topic)
    assert sorted(orjson.loads(message.value)["request_id"] for message in messages) == sorted(worker.ids)
    for message in messages:
        envelope = orjson.loads(message.value)
        assert message.key == envelope["request_id"].encode()
        assert message.partition == partition_of(envelope["request_id"], PARTITIONS)
        assert message.headers == (("clearpane-schema", b"call.v1"),)
        assert envelope["attempt"] == 1
    assert not [path for path in (lab.data / "spool").glob("*/journal/*") if b'["h"' in path.read_bytes()]


async def test_started_goes_out_for_calls_that_run(lab: Any, kafka_bootstrap: str, kafka_topic: str) -> None:
    worker = lab.worker()
    worker.call(started=True)
    await worker.written()
    superseded = value("clearpane_shipper_started_total", outcome="superseded")
    sent = value("clearpane_shipper_started_total", outcome="sent")
    async with lab.shipping(lab.settings(kafka=kafka_bootstrap, topic=kafka_topic)):
        await lab.until(lambda: value("clearpane_shipper_started_total", outcome="superseded") == superseded + 1)
        await lab.until(lambda: value("clearpane_shipper_kafka_up") == 1)
        sequence, stated = worker.open_call(started=True)
        await lab.until(lambda: value("clearpane_shipper_started_total", outcome="sent") == sent + 1)
        worker.spool.completed(sequence, orjson.dumps(stated), b"", b"")
        await lab.until(lambda: worker.spool.counters.written_records == 2)
    messages = await read_all(kafka_bootstrap, kafka_topic)
    assert [envelope["request_id"] for envelope in records(messages, "started")] == [stated["request_id"]]
    assert sorted(envelope["request_id"] for envelope in records(messages)) == sorted(worker.ids)


async def test_while_kafka_is_away_records_go_by_http(lab: Any, intake: Any, own_kafka: Any) -> None:
    topic = await topic_of(own_kafka.bootstrap, "calls")
    worker = lab.worker()
    async with lab.shipping(lab.posting(intake, kafka=own_kafka.bootstrap, topic=topic, kafka_deadline_s=1.0)):
        for _ in range(50):
            worker.call()
        await lab.until(lambda: worker.spool.counters.written_records == 50)
        await asyncio.sleep(0.5)
        own_kafka.kill()
        async with asyncio.timeout(20):
            while len(intake.records) < 20:
                worker.call()
                await asyncio.sleep(0.02)
        await own_kafka.start()
        await lab.until(lambda: value("clearpane_shipper_kafka_up") == 1, 30)
        while_away = len(worker.ids)
        for _ in range(50):
            worker.call()
        await worker.written()
        await asyncio.sleep(1)
        await lab.until(lambda: value("clearpane_shipper_spooled_records") == 0, 30)
    by_http = [record["request_id"] for record in intake.records]
    by_kafka = [request_id for request_id in worker.ids if request_id not in set(by_http)]
    assert len(by_http) == len(set(by_http))
    assert set(worker.ids[while_away:]) <= set(by_kafka)
    check_copies(await read_all(own_kafka.bootstrap, topic), by_kafka)


@pytest.mark.parametrize("with_intake", [True, False])
async def test_a_broker_frozen_in_mid_send_leaves_records_in_doubt_with_kafka(
    lab: Any, intake: Any, own_kafka: Any, with_intake: bool
) -> None:
    topic = await topic_of(own_kafka.bootstrap, "calls")
    worker = lab.worker()
    doubts = value("clearpane_shipper_kafka_in_doubt_total")
    settings = {"kafka": own_kafka.bootstrap, "topic": topic, "kafka_deadline_s": 1.0}
    async with lab.shipping(lab.posting(intake, **settings) if with_intake else lab.settings(**settings)):
        await lab.until(lambda: value("clearpane_shipper_kafka_up") == 1)
        own_kafka.pause()
        for _ in range(100):
            worker.call()
        await lab.until(lambda: value("clearpane_shipper_kafka_in_doubt_total") > doubts, 20)
        if with_intake:
            for _ in range(20):
                worker.call()
            await lab.until(lambda: len(intake.records) >= 20, 20)
        await asyncio.sleep(2)
        own_kafka.resume()
        await lab.until(lambda: value("clearpane_shipper_spooled_records") == 0 and value("clearpane_shipper_kafka_up") == 1, 60)
        await asyncio.sleep(1)
    by_http = {record["request_id"] for record in intake.records}
    messages = await read_all(own_kafka.bootstrap, topic)
    check_copies(messages, [request_id for request_id in worker.ids if request_id not in by_http])
    assert max(envelope["attempt"] for envelope in records(messages)) >= 2


async def test_a_broker_killed_in_mid_send_loses_nothing(lab: Any, own_kafka: Any) -> None:
    topic = await topic_of(own_kafka.bootstrap, "calls")
    worker = lab.worker()
    async with lab.shipping(lab.settings(kafka=own_kafka.bootstrap, topic=topic, kafka_deadline_s=1.0)):
        await lab.until(lambda: value("clearpane_shipper_kafka_up") == 1)
        for number in range(600):
            worker.call(response=os.urandom(3000))
            if number == 300:
                own_kafka.kill()
            await asyncio.sleep(0.001)
        await asyncio.sleep(2)
        await own_kafka.start()
        await lab.until(
            lambda: worker.spool.counters.written_records == 600 and not value("clearpane_shipper_spooled_records")
            and value("clearpane_shipper_kafka_up") == 1, 60,
        )  # fmt: skip
        await asyncio.sleep(2)
    check_copies(await read_all(own_kafka.bootstrap, topic), worker.ids)


async def test_too_large_records_go_by_http(lab: Any, intake: Any, kafka_bootstrap: str, kafka_topic: str) -> None:
    worker = lab.worker()
    async with lab.shipping(lab.posting(intake, kafka=kafka_bootstrap, topic=kafka_topic, kafka_record_bytes_max=20_000)):
        await lab.until(lambda: value("clearpane_shipper_kafka_up") == 1)
        large = worker.call(response=b"x" * 30_000)
        small = worker.call()
        await lab.until(lambda: len(intake.records) == 1)
    assert [record["request_id"] for record in intake.records] == [large]
    assert [envelope["request_id"] for envelope in records(await read_all(kafka_bootstrap, kafka_topic))] == [small]


async def test_too_large_records_go_without_bodies_where_kafka_is_all_there_is(lab: Any, kafka_bootstrap: str, kafka_topic: str) -> None:
    worker = lab.worker()
    async with lab.shipping(lab.settings(kafka=kafka_bootstrap, topic=kafka_topic, kafka_record_bytes_max=20_000)):
        worker.call(response=b'{"usage":{"total_tokens":3},"text":"' + b"x" * 30_000 + b'"}')
        await lab.until((lab.data / "poison").exists, 30)
        await lab.until(lambda: value("clearpane_shipper_kafka_up") == 1, 30)
        await asyncio.sleep(1)
    (envelope,) = records(await read_all(kafka_bootstrap, kafka_topic))
    assert (envelope["response"]["body"], envelope["policy"]["dropped"]) == ('{"usage":{"total_tokens":3}}', ["request", "response"])


@pytest.mark.parametrize("with_intake", [True, False])
async def test_what_the_broker_finds_too_large_has_another_way(lab: Any, intake: Any, kafka_bootstrap: str, with_intake: bool) -> None:
    topic = await topic_of(kafka_bootstrap, f"small-{os.urandom(4).hex()}", **{"max.message.bytes": "30000"})
    worker = lab.worker()
    settings = {"kafka": kafka_bootstrap, "topic": topic}
    async with lab.shipping(lab.posting(intake, **settings) if with_intake else lab.settings(**settings)):
        await lab.until(lambda: value("clearpane_shipper_kafka_up") == 1)
        worker.call(response=os.urandom(60_000))
        await lab.until(lambda: len(intake.records) == 1 if with_intake else (lab.data / "poison").exists())
        await lab.until(lambda: value("clearpane_shipper_kafka_up") == 1)
        for _ in range(20):
            worker.call()
        await lab.until(lambda: worker.spool.counters.written_records == 21 and not value("clearpane_shipper_spooled_records"), 20)
        await asyncio.sleep(1.5)
    by_http = {record["request_id"] for record in intake.records}
    assert (worker.ids[0] in by_http) == with_intake
    check_copies(await read_all(kafka_bootstrap, topic), [request_id for request_id in worker.ids if request_id not in by_http])


async def test_a_topic_that_is_not_there_yet(lab: Any, own_kafka: Any, caplog: pytest.LogCaptureFixture) -> None:
    worker = lab.worker()
    with caplog.at_level(logging.WARNING, "proxy"):
        async with lab.shipping(lab.settings(kafka=own_kafka.bootstrap, topic="late")):
            worker.call()
            await asyncio.sleep(3)
            await topic_of(own_kafka.bootstrap, "late")
            await lab.until(lambda: value("clearpane_shipper_kafka_up") == 1, 30)
            await asyncio.sleep(1)
    check_copies(await read_all(own_kafka.bootstrap, "late"), worker.ids)
    assert len(caplog.records) < 4


async def test_the_librarys_debug_log_stays_off(lab: Any, kafka_bootstrap: str, kafka_topic: str, caplog: pytest.LogCaptureFixture) -> None:
    worker = lab.worker()
    library = logging.getLogger("aiokafka")
    library.setLevel(logging.DEBUG)
    try:
        with caplog.at_level(logging.DEBUG):
            async with lab.shipping(lab.settings(kafka=kafka_bootstrap, topic=kafka_topic)):
                worker.call(response=b"a-private-answer")
                await lab.until(lambda: value("clearpane_shipper_kafka_up") == 1)
                await asyncio.sleep(0.5)
    finally:
        library.setLevel(logging.NOTSET)
    assert len(await read_all(kafka_bootstrap, kafka_topic)) == 1
    assert "a-private-answer" not in caplog.text


class Process:
    """The shipper as its own process, as the supervisor starts it."""

    def __init__(self, settings: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "proxy.shipper"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert self._process.stdin is not None
        self._process.stdin.write(Handover(settings=settings).to_line())
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def cut_life_line(self) -> tuple[int, bytes]:
        _, errors = self._process.communicate(timeout=30)
        return self._process.returncode, errors


async def test_a_shipper_killed_in_mid_batch_keeps_every_path(lab: Any, intake: Any, own_kafka: Any) -> None:
    """Its records are in doubt with a frozen broker; the next life sends them there again and nowhere else."""
    topic = await topic_of(own_kafka.bootstrap, "calls")
    settings = lab.posting(intake, kafka=own_kafka.bootstrap, topic=topic, kafka_deadline_s=2.0)
    worker = lab.worker()
    shipper = Process(settings)
    for _ in range(10):
        worker.call()
    await lab.until(lambda: any(b'["d"' in path.read_bytes() for path in (lab.data / "spool").glob("*/journal/*.journal")), 20)
    own_kafka.pause()
    for _ in range(40):
        worker.call()
    await lab.until(lambda: sum(path.read_bytes().count(b'["k"') for path in (lab.data / "spool").glob("*/journal/*.journal")) >= 30, 20)
    shipper.kill()
    own_kafka.resume()
    shipper = Process(settings)
    folder = lab.data / "spool" / worker.spool.spool_id
    worker.die()
    await lab.until(lambda: not folder.exists(), 40)
    code, errors = await asyncio.to_thread(shipper.cut_life_line)
    assert code == 0, errors
    messages = await read_all(own_kafka.bootstrap, topic)
    by_http = [record["request_id"] for record in intake.records]
    assert len(by_http) == len(set(by_http))
    check_copies(messages, [request_id for request_id in worker.ids if request_id not in set(by_http)])
    assert max(envelope["attempt"] for envelope in records(messages)) == 2


async def test_a_shipper_killed_again_and_again_loses_nothing(lab: Any, intake: Any, own_kafka: Any) -> None:
    topic = await topic_of(own_kafka.bootstrap, "calls")
    settings = lab.posting(intake, kafka=own_kafka.bootstrap, topic=topic, kafka_deadline_s=1.0, kafka_record_bytes_max=4000)
    worker = lab.worker(segment_bytes=1 << 16)
    for life in range(8):
        shipper = Process(settings)
        for number in range(60):
            worker.call(response=b"x" * (6000 if number % 3 == 0 else 500))
            await asyncio.sleep(0.01 + 0.002 * life)
        shipper.kill()
    shipper = Process(settings)
    folder = lab.data / "spool" / worker.spool.spool_id
    worker.die()
    await lab.until(lambda: not folder.exists(), 40)
    code, errors = await asyncio.to_thread(shipper.cut_life_line)
    assert code == 0, errors
    by_http = [record["request_id"] for record in intake.records]
    large = {request_id for number, request_id in enumerate(worker.ids) if number % 3 == 0}
    assert large <= set(by_http)
    assert len(by_http) == len(set(by_http))
    check_copies(await read_all(own_kafka.bootstrap, topic), [request_id for request_id in worker.ids if request_id not in set(by_http)])
