"""The look at a topic ends, whatever Kafka does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import TopicPartition

from clearpane.settings import Settings
from consumer.sources import topic

PLACE = TopicPartition("clearpane.calls", 3)


class Stuck:
    """Says that there are ten messages, and gives four."""

    def __init__(self) -> None:
        self.given = 0

    async def beginning_offsets(self, found: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(found, 0)

    async def end_offsets(self, found: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(found, 10)

    def seek(self, _: TopicPartition, at: int) -> None:
        self.given = at

    async def getmany(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0.05)
        self.given = min(4, self.given + 1)
        return {}

    async def position(self, _: TopicPartition) -> int:
        return self.given


async def test_a_partition_that_gives_nothing_more_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def looking(_: Settings) -> AsyncIterator[tuple[Any, list[TopicPartition]]]:
        yield Stuck(), [PLACE]

    monkeypatch.setattr(topic, "_looking", looking)
    monkeypatch.setattr(topic, "TIMEOUT_S", 0.1)
    with pytest.raises(topic.NoTopic, match="partition 3 stands at 4"):
        async with asyncio.timeout(10):
            _ = [one async for one in topic.lying(Settings(), {})]
