"""The Kafka side: a member of the consumer group. This module and `topic` alone know aiokafka.

Positions come from the lake; what is committed to Kafka is for lag monitoring and read by nobody here.
"""

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RebalanceInProgressError,
)

from clearpane.contract.identifiers import Log
from clearpane.settings import Settings
from consumer import metrics
from consumer.lake.chain import Lake
from consumer.lake.messages import Message
from consumer.sources.partition import Pace, Partition, Revoked

log = logging.getLogger(__name__)
T = TypeVar("T")

SESSION_TIMEOUT_MS = 30_000
HEARTBEAT_MS = 3_000
POLL_INTERVAL_MS_MAX = 600_000
POLL_MS = 200
METADATA_AGE_MS = 60_000
FETCH_BYTES_MAX = 32 << 20
WRITES_AT_ONCE = 8
COMMIT_TIMEOUT_S = 10.0
STOP_S = 10.0
CANCEL_S = 1.0
PAUSE_S, PAUSE_S_MAX = 0.5, 15.0  # between sessions
INCARNATIONS_MAX = 16  # of a topic, that are looked at: the newest and those before it
# Of what all partitions hold together, in objects: then fetching waits for the lake.
OBJECTS_HELD_MAX = 4


class KafkaSource:
    def __init__(self, lake: Lake, settings: Settings) -> None:
        self._lake = lake
        self._settings = settings
        self._bytes_max = OBJECTS_HELD_MAX * settings.object_bytes_max

    async def run(self, ready: Callable[[], None]) -> None:
        """For ever: a session that breaks is begun again. `ready` is called when this member has joined the group."""
        pause_s = PAUSE_S
        while True:
            began = time.monotonic()
            try:
                await _Session(self._lake, self._settings, self._bytes_max).run(ready)
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("the Kafka session ended, next one in %.1f s: %s: %s", pause_s, type(error).__name__, error)
            metrics.kafka_restarts.inc()
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311
            pause_s = PAUSE_S if time.monotonic() - began > PAUSE_S_MAX * 2 else min(pause_s * 2, PAUSE_S_MAX)


class _Session(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """One life of one group member."""

    def __init__(self, lake: Lake, settings: Settings, bytes_max: int) -> None:
        self._lake = lake
        self._settings = settings
        self._bytes_max = bytes_max
        self._consumer: Any = None
        self._leaving = False  # a join under way may still be answered: nothing is begun any more
        self._partitions: dict[TopicPartition, Partition] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pace = Pace(flush_s=settings.flush_seconds, gate=asyncio.Semaphore(WRITES_AT_ONCE))

    async def run(self, ready: Callable[[], None]) -> None:
        self._consumer = client(self._settings, self._settings.kafka_group)
        self._consumer.subscribe([self._settings.topic], listener=self)
        try:
            await self._consumer.start()
            ready()
            while True:
                await self._fetch()
                self._raise_failed()
                self._regulate()
                self._measure()
        finally:
            self._leaving = True
            await self._drop()
            try:
                async with asyncio.timeout(STOP_S):
                    await self._consumer.stop()
            except (TimeoutError, KafkaError) as error:
                log.warning("left the consumer group without a goodbye: %s", type(error).__name__)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """What is buffered is dropped: the next owner reads it again."""
        await self._drop()

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Nothing is fetched before the lake has said from where: until then each stands paused at a place of no meaning."""
        if self._leaving:
            return
        for tp in assigned:
            self._consumer.seek(tp, 0)
            self._consumer.pause(tp)
            newest = self._settings.incarnation
            name, *earlier = (
                Log.of_partition(tp.topic, tp.partition, number).name for number in range(newest, max(-1, newest - INCARNATIONS_MAX), -1)
            )
            partition = Partition(self._lake, name, _KafkaPort(self._consumer, tp), self._pace, earlier)
            self._partitions[tp] = partition
            self._tasks.add(asyncio.create_task(partition.run(), name=name))
        metrics.partitions_owned.set(len(self._partitions))

    async def _drop(self) -> None:
        tasks, self._tasks = self._tasks, set()
        self._partitions.clear()
        metrics.partitions_owned.set(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self) -> None:
        try:
            found = await self._consumer.getmany(timeout_ms=POLL_MS)
        except NoOffsetForPartitionError:
            return  # asked for before our own seek
        except OffsetOutOfRangeError as error:
            for tp in error.args[0]:
                if tp in self._partitions:
                    self._partitions[tp].reopen()
            return
        for tp, records in found.items():
            partition = self._partitions.get(tp)
            if partition is not None and partition.delivering:
                metrics.messages_read.labels("kafka").inc(len(records))
                partition.offer([Message(record.offset, record.timestamp, record.value or b"") for record in records])

    def _raise_failed(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _regulate(self) -> None:
        """Fetch no more than the lake takes; membership goes on by heartbeats and polls."""
        held = sum(partition.bytes for partition in self._partitions.values())
        share = max(2 * self._settings.object_bytes_max, self._settings.kafka_record_bytes_max)
        for tp, partition in self._partitions.items():
            if not partition.delivering:
                continue
            if held >= self._bytes_max or partition.bytes >= share:
                self._consumer.pause(tp)
            else:
                self._consumer.resume(tp)

    def _measure(self) -> None:
        now = time.monotonic()
        lag = 0
        for tp, partition in self._partitions.items():
            if partition.tail is not None and (end := self._consumer.highwater(tp)) is not None:
                lag += max(0, end - partition.tail)
        metrics.lag_messages.set(lag)
        ages = (now - partition.first_at for partition in self._partitions.values() if partition.first_at is not None)
        metrics.oldest_buffered_seconds.set(max(ages, default=0.0))


class _KafkaPort:
    """One partition of one session, as `partition.Port` describes it."""

    def __init__(self, consumer: Any, tp: TopicPartition) -> None:
        self._consumer = consumer
        self._tp = tp

    async def bounds(self) -> tuple[int, int]:
        pause_s = PAUSE_S
        while True:
            try:
                first = await _finished(self._consumer.beginning_offsets([self._tp]))
                end = await _finished(self._consumer.end_offsets([self._tp]))
            except KafkaError as error:
                log.warning("no offsets of %s, trying again in %.1f s: %s", self._tp, pause_s, type(error).__name__)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, PAUSE_S_MAX)
            else:
                return first[self._tp], end[self._tp]

    def begin(self, offset: int) -> None:
        try:
            self._consumer.seek(self._tp, offset)
            self._consumer.resume(self._tp)
        except IllegalStateError as error:
            raise Revoked from error

    def hold(self) -> None:
        try:
            self._consumer.pause(self._tp)
        except IllegalStateError:
            return  # revoked: nothing is delivered any more

    async def commit(self, offset: int) -> bool:
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                await _finished(self._consumer.commit({self._tp: offset}))
        except (CommitFailedError, IllegalStateError, RebalanceInProgressError):
            return False
        except (KafkaError, TimeoutError) as error:
            log.info("offset %d of %s is not committed: %s", offset, self._tp, type(error).__name__)
        return True


async def _finished(request: Coroutine[Any, Any, T]) -> T:
    """Cancelled, it still lets the client finish for a moment: aiokafka forgets a connection that is cut off in the making."""
    task = asyncio.create_task(request)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=CANCEL_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise


def client(settings: Settings, group: str | None, *topics: str) -> AIOKafkaConsumer:
    """A consumer that is not started. Without a group it only looks, at all partitions of `topics`."""
    secured = settings.kafka_security in ("SSL", "SASL_SSL")
    context = ssl.create_default_context(cafile=str(settings.kafka_ca_file) if settings.kafka_ca_file else None) if secured else None
    return AIOKafkaConsumer(
        *topics,
        bootstrap_servers=settings.kafka,
        client_id="clearpane-consumer",
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="none",
        session_timeout_ms=SESSION_TIMEOUT_MS,
        heartbeat_interval_ms=HEARTBEAT_MS,
        max_poll_interval_ms=POLL_INTERVAL_MS_MAX,
        metadata_max_age_ms=METADATA_AGE_MS,
        fetch_max_bytes=FETCH_BYTES_MAX,
        max_partition_fetch_bytes=max(1 << 20, settings.kafka_record_bytes_max),
        security_protocol=settings.kafka_security,
        sasl_mechanism=settings.kafka_sasl,
        sasl_plain_username=settings.kafka_username,
        sasl_plain_password=settings.kafka_password,
        ssl_context=context,
    )
