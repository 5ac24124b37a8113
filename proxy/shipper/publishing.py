"""Publishing: one spool's records on their way to Kafka, until their fate is known."""

import asyncio
import logging
from collections.abc import Coroutine

from clearpane.contract.identifiers import partition_of
from proxy.shipper import metrics
from proxy.shipper.envelopes import Message
from proxy.shipper.kafka import Fate, Kafka, Record
from proxy.shipper.ledger import Ledger
from proxy.shipper.records import Records, Wanted
from proxy.shipper.tracker import Call

log = logging.getLogger(__name__)

_IN_FLIGHT_BYTES_MAX = 8 << 20
# Records in doubt that are fetched from the spool and sent again at once.
_AGAIN_MAX = 64


class Publishing:
    """`intake`: whether a record that Kafka finds too large has another way."""

    def __init__(self, kafka: Kafka, ledger: Ledger, records: Records, *, intake: bool) -> None:
        self._kafka = kafka
        self._ledger = ledger
        self._records = records
        self._intake = intake
        self._too_large: set[int] = set()
        self._in_flight_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def slots(self) -> int:
        return self._kafka.slots if self._in_flight_bytes < _IN_FLIGHT_BYTES_MAX else 0

    @property
    def deciding(self) -> bool:
        return self._kafka.deciding or self._in_flight_bytes >= _IN_FLIGHT_BYTES_MAX

    @property
    def partitions(self) -> int:
        return self._kafka.partitions

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    def start(self, batch: list[tuple[Call, Message]]) -> None:
        """All of them stand in the journal with this attempt."""
        records = [Record(message.request_id, message.data, call.partition) for call, message in batch]
        self._spawn(self._publish(batch, self._kafka.publish(records)), sum(len(message.data) for _, message in batch))

    def start_started(self, messages: list[Message]) -> None:
        """`started` messages: sent once or not at all."""
        if not self.slots:
            metrics.STARTED.labels("dropped").inc(len(messages))
            return
        self._spawn(self._publish_started(messages), sum(len(message.data) for message in messages))

    async def again(self) -> bool:
        """Sends records in doubt once more, oldest first. Whether there were any."""
        tracker = self._ledger.tracker
        calls = list(tracker.doubtful.values())[: min(_AGAIN_MAX, self.slots)]
        if not calls:
            return False
        wanted = [Wanted.of(call, call.attempt + 1, "too_large" if call.sequence in self._too_large else None) for call in calls]
        found = await asyncio.to_thread(self._records.some, wanted, {}, _IN_FLIGHT_BYTES_MAX)
        batch = [(call, message) for call, message in zip(calls, found, strict=False) if message is not None]
        if lost := [call for call, message in zip(calls, found, strict=False) if message is None]:
            metrics.DROPPED.labels("unreadable").inc(len(lost))
            log.error("%d records in doubt can no longer be read from the spool and are lost unless Kafka has them", len(lost))
            await self._ledger.write(tracker.drop(lost, "unreadable"))
        if batch:
            await self._ledger.write([tracker.again(call) for call, _ in batch], frames=frozenset())
            self.start(batch)
        return True

    async def finish(self, timeout_s: float) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[None, None, None], size: int) -> None:
        self._in_flight_bytes += size
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, size))

    def _ended(self, task: asyncio.Task[None], size: int) -> None:
        self._in_flight_bytes -= size
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("publishing failed: %s", type(error).__name__)

    async def _publish(self, batch: list[tuple[Call, Message]], publication: Coroutine[None, None, list[Fate]]) -> None:
        fates = [Fate.IN_DOUBT] * len(batch)
        try:
            fates = await publication
        finally:
            doubtful = [call for (call, _), fate in zip(batch, fates, strict=True) if fate is Fate.IN_DOUBT]
            metrics.KAFKA_IN_DOUBT.inc(len(doubtful))
            for call in doubtful:
                self._ledger.tracker.in_doubt(call)
        acknowledged = [call for (call, _), fate in zip(batch, fates, strict=True) if fate is Fate.ACKNOWLEDGED]
        if acknowledged:
            metrics.SENT.labels("kafka").inc(len(acknowledged))
            await self._ledger.write([self._ledger.tracker.settle(acknowledged)])
        for (call, message), fate in zip(batch, fates, strict=True):
            if fate is Fate.TOO_LARGE:
                await self._refused(call, message)

    async def _refused(self, call: Call, message: Message) -> None:
        """Too large for the topic, so it is certainly not in its log, unless an earlier attempt is in doubt."""
        tracker = self._ledger.tracker
        if self._intake and call.attempt == 1:
            entry = tracker.to_http(call, message.request_id)
            await self._ledger.write([entry], frames=frozenset(call.segments))
            call.written = True
            return
        self._too_large.add(call.sequence)
        tracker.in_doubt(call)

    async def _publish_started(self, messages: list[Message]) -> None:
        partitions = self._kafka.partitions
        records = [Record(m.request_id, m.data, partition_of(m.request_id, partitions)) for m in messages]
        for fate in await self._kafka.publish(records):
            metrics.STARTED.labels("sent" if fate is Fate.ACKNOWLEDGED else "dropped").inc()
