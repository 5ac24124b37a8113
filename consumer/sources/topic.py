"""The topic as a bystander sees it: how many partitions, and which records lie in it that the lake does not have yet."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from clearpane.contract.envelope import Envelope
from clearpane.settings import Settings
from consumer.lake.messages import NotAnEnvelope, parse
from consumer.sources.kafka import client

TIMEOUT_S = 30.0  # of one answer
POLL_MS = 500


class NoTopic(Exception):
    """Kafka cannot be looked at: why."""


@dataclass(frozen=True, slots=True)
class Lying:
    """A record in the topic. `source` None: a message that cannot be read."""

    partition: int
    offset: int
    source: str | None
    sequence: int | None
    request_id: str | None


async def partitions(settings: Settings) -> int:
    """Raises NoTopic."""
    async with _looking(settings) as (consumer, found):
        # A client that is stopped while it connects forgets the connection: an answer shows that it has one.
        return len(await _answered(consumer.end_offsets(found)))


async def lying(settings: Settings, ends: Mapping[int, int]) -> AsyncIterator[Lying]:
    """What stands in each partition from `ends` on (where the lake ends, absent: the partition's beginning) up to its end now.

    `started` messages are none. Raises NoTopic.
    """
    async with _looking(settings) as (consumer, found):
        first = await _answered(consumer.beginning_offsets(found))
        until = await _answered(consumer.end_offsets(found))
        begin = {tp: max(first[tp], ends.get(tp.partition, first[tp])) for tp in found}
        left = {tp for tp in found if begin[tp] < until[tp]}
        for tp in found:
            consumer.seek(tp, begin[tp])
            if tp not in left:
                consumer.pause(tp)
        places, moved_s = dict(begin), time.monotonic()
        while left:
            for tp, messages in (await _answered(consumer.getmany(timeout_ms=POLL_MS))).items():
                for message in messages:
                    if message.offset < until[tp] and (one := _lying(tp.partition, message.offset, message.value or b"")) is not None:
                        yield one
            before, places = places, {tp: await _answered(consumer.position(tp)) for tp in left}
            moved_s = time.monotonic() if any(place != before[tp] for tp, place in places.items()) else moved_s
            left = {tp for tp, place in places.items() if place < until[tp]}
            if left and time.monotonic() - moved_s > TIMEOUT_S:
                raise NoTopic(f"Kafka gives no more of {settings.topic}: partition {min(left).partition} stands at {places[min(left)]}")


def _lying(partition: int, offset: int, value: bytes) -> Lying | None:
    try:
        envelope: Envelope = parse(value)
    except NotAnEnvelope:
        return Lying(partition, offset, None, None, None)
    if envelope["event"] == "started":
        return None
    source, sequence = envelope.get("source"), envelope.get("sequence")
    return Lying(
        partition, offset, source if isinstance(source, str) else None, sequence if type(sequence) is int else None, envelope["request_id"]
    )


@asynccontextmanager
async def _looking(settings: Settings) -> AsyncIterator[tuple[Any, list[TopicPartition]]]:
    """A client that joins no group, and the topic's partitions."""
    # Asked for first: a client that wants a topic which is not there may have a broker make it.
    async with _started(client(settings, None)) as consumer:
        if settings.topic not in await _answered(consumer.topics()):
            raise NoTopic(f"there is no topic {settings.topic} at {settings.kafka}")
    async with _started(client(settings, None, settings.topic)) as consumer:
        yield consumer, sorted(consumer.assignment())


@asynccontextmanager
async def _started(consumer: Any) -> AsyncIterator[Any]:
    try:
        await _answered(consumer.start())
        yield consumer
    finally:
        await _answered(consumer.stop())


async def _answered(request: Any) -> Any:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await request
    except (KafkaError, OSError, TimeoutError) as error:
        raise NoTopic(f"Kafka does not answer: {type(error).__name__}: {error}") from error
