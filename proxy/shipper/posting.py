"""Posting: one spool's HTTP sequence on its way to the intake, in order, one POST at a time."""

import asyncio
import logging
from itertools import takewhile

from proxy.shipper import metrics
from proxy.shipper.backoff import Backoff
from proxy.shipper.envelopes import Message
from proxy.shipper.ledger import Ledger
from proxy.shipper.post import Answer, Behind, Intake, Refused, Stored, Unavailable
from proxy.shipper.records import Records, Wanted
from proxy.shipper.tracker import Call

log = logging.getLogger(__name__)

# Numbered records that are not stored yet; more wait in the spool, where they can still go to Kafka.
_NUMBERED_MAX = 10_000
_BATCH_RECORDS_MAX = 1000
# Messages kept from when they were built; others are fetched from the spool again.
_KEPT_BYTES_MAX = 8 << 20
_IDLE_S = 0.25
_HINTS = {
    "unauthorized": "intake_secret must be the same here and at the consumer, and the clocks within five minutes",
    "unreachable": "is the consumer running, and `intake` its address?",
    "timeout": "the consumer or its lake is slow; post_timeout_s bounds the wait",
    "answer": "what answers there is not a Clearpane intake, or of another version",
    "status": "the consumer cannot store now",
}


class Posting:
    def __init__(self, intake: Intake, ledger: Ledger, records: Records, *, spool_id: str, flush_s: float, post_bytes_max: int) -> None:
        self._intake, self._ledger, self._records = intake, ledger, records
        self._spool_id, self._flush_s, self._post_bytes_max = spool_id, flush_s, post_bytes_max
        self._kept: dict[int, Message] = {}
        self._kept_bytes = 0
        self._refused: set[int] = set()
        self._records_max = _BATCH_RECORDS_MAX
        self._backoff = Backoff()
        self._said = ""
        self._hurry = False
        self._stopping = False
        self._wake = asyncio.Event()

    @property
    def slots(self) -> int:
        return _NUMBERED_MAX - len(self._ledger.tracker.numbered)

    def offer(self, call: Call, message: Message) -> None:
        """A record that was numbered just now. Its message is kept if there is room."""
        if self._kept_bytes + len(message.data) <= _KEPT_BYTES_MAX:
            self._kept[call.sequence] = message
            self._kept_bytes += len(message.data)
        self._wake.set()

    def hurry(self) -> None:
        """From now on nothing is collected: what is there is sent."""
        self._hurry = True
        self._wake.set()

    def stop(self) -> None:
        """`run` returns after the POST that is under way."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        first_seen_s: float | None = None
        while not self._stopping:
            calls = self._next()
            now_s = loop.time()
            first_seen_s = (first_seen_s or now_s) if calls else None
            wait_s = _IDLE_S if first_seen_s is None else first_seen_s + self._flush_s - now_s
            if calls and (wait_s <= 0 or self._hurry or self._is_full(calls)):
                await self._pause(await self._post(calls))
                first_seen_s = None
            else:
                await self._sleep(wait_s)

    def _next(self) -> list[Call]:
        """The calls of the next numbers, as far as their records can be had."""
        tracker = self._ledger.tracker
        calls: list[Call] = []
        for number in range(tracker.http_end, min(tracker.http_next, tracker.http_end + self._records_max)):
            call = tracker.numbered.get(number)
            if call is None or not call.written or not tracker.at_hand(call):
                break
            calls.append(call)
        return calls

    def _is_full(self, calls: list[Call]) -> bool:
        kept = (self._kept.get(call.sequence) for call in calls)
        return len(calls) >= self._records_max or sum(len(message.data) for message in kept if message) >= self._post_bytes_max

    async def _post(self, calls: list[Call]) -> float:
        """Seconds to wait before the next POST."""
        messages = await self._messages(calls)
        first = self._ledger.tracker.http_end
        answer = await self._intake.post(self._spool_id, first, [message.data for message in messages])
        metrics.POSTS.labels(_outcome(answer)).inc()
        if isinstance(answer, Stored) and answer.end > first:
            await self._stored(answer.end)
            return 0.0
        if isinstance(answer, Refused):
            return self._refuse(calls[: len(messages)], answer)
        if isinstance(answer, Behind):
            self._say(
                f"the lake behind the intake ends at {answer.end} for this spool, but {first} records were acknowledged: "
                "is it another lake? The records stay in the spool"
            )
            return self._backoff.failed()
        if isinstance(answer, Stored):
            answer = Unavailable("answer")
        self._say(f"the intake does not take records ({answer.reason}, status {answer.status}): {_HINTS[answer.reason]}")
        return self._backoff.failed(answer.retry_after_s)

    async def _stored(self, end: int) -> None:
        settled = {call.sequence for number, call in self._ledger.tracker.numbered.items() if number < end}
        entry, count = self._ledger.tracker.stored(end)
        metrics.SENT.labels("http").inc(count)
        for sequence in settled:
            self._drop_kept(sequence)
        self._refused -= settled
        self._records_max = min(2 * self._records_max, _BATCH_RECORDS_MAX)
        self._backoff.succeeded()
        self._said = ""
        await self._ledger.write([entry])

    def _refuse(self, calls: list[Call], answer: Refused) -> float:
        """Half the batch; a single record without its bodies; then it is not the record that is wrong."""
        if len(calls) > 1:
            self._records_max = len(calls) // 2
            return 0.0
        if calls[0].sequence in self._refused:
            self._say(f"the intake refuses even a record without bodies (status {answer.status}): is it of an older version?")
            return self._backoff.failed()
        self._refused.add(calls[0].sequence)
        self._drop_kept(calls[0].sequence)
        return 0.0

    async def _messages(self, calls: list[Call]) -> list[Message]:
        """As many as one POST may hold, and at least one."""
        messages: list[Message] = []
        room = self._post_bytes_max
        while len(messages) < len(calls):
            for message in await self._some(calls[len(messages) :], room):
                room -= len(message.data)
                if messages and room < 0:
                    return messages
                messages.append(message)
        return messages

    async def _some(self, calls: list[Call], room: int) -> list[Message]:
        """The first ones: those that are kept, or, if the very first is not, those up to the next that is."""
        kept = list(takewhile(bool, (self._kept.get(call.sequence) for call in calls)))
        if kept:
            return [message for message in kept if message]
        missing = takewhile(lambda call: call.sequence not in self._kept, calls)
        wanted = [Wanted.of(call, 1, "refused" if call.sequence in self._refused else None) for call in missing]
        found = await asyncio.to_thread(self._records.some, wanted, {}, room)
        assert None not in found, "a numbered call has a request id, so at least its placeholder can be made"
        return [message for message in found if message]

    def _drop_kept(self, sequence: int) -> None:
        message = self._kept.pop(sequence, None)
        if message is not None:
            self._kept_bytes -= len(message.data)

    async def _pause(self, wait_s: float) -> None:
        """After a failure: whole, whatever is offered meanwhile; a stop ends it."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        while not self._stopping and (left_s := until_s - loop.time()) > 0:
            await self._sleep(left_s)

    async def _sleep(self, wait_s: float) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            return

    def _say(self, what: str) -> None:
        """Once, until it is over or something else is wrong."""
        if what != self._said:
            self._said = what
            log.warning("spool %s: %s", self._spool_id, what)


def _outcome(answer: Answer) -> str:
    if isinstance(answer, Unavailable):
        return answer.reason
    return {Stored: "stored", Behind: "behind", Refused: "refused"}[type(answer)]
