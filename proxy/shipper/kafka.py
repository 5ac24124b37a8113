"""Kafka: the producer, thrown away and built anew whenever the fate of a record is not known. Imports aiokafka, alone.

Idempotent producers of aiokafka never give up on a batch, hang when they are stopped while the broker is away, and
stay broken after one refusal. So nothing here waits without a deadline, and no producer outlives a doubt.
"""

# ruff: noqa: SLF001 - a producer that does not stop can only be taken apart from inside

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError

from clearpane.contract.envelope import SCHEMA, SCHEMA_HEADER
from clearpane.settings import Settings
from proxy.shipper import metrics
from proxy.shipper.circuit import Circuit, State

log = logging.getLogger(__name__)

_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 2.0
_BATCH_BYTES = 1 << 20
_LINGER_MS = 5
_METADATA_MAX_AGE_MS = 60_000
# Key, headers and framing of a message, beside its value.
_MESSAGE_OVERHEAD_BYTES = 64 << 10
_HEADERS = [(SCHEMA_HEADER, SCHEMA.encode())]


class Fate(Enum):
    ACKNOWLEDGED = "acknowledged"
    IN_DOUBT = "in_doubt"
    TOO_LARGE = "too_large"  # the broker refused it: it is not in the log


@dataclass(frozen=True, slots=True)
class Record:
    request_id: str
    data: bytes
    partition: int


class Kafka:
    """`run` keeps a producer alive; `publish` may be called by many tasks at once."""

    def __init__(self, settings: Settings) -> None:
        self.partitions = 0
        self._settings = settings
        self._circuit = Circuit(settings.kafka_probe_s)
        self._producer: AIOKafkaProducer | None = None
        self._failed = asyncio.Event()
        self._said = ""
        # At DEBUG it prints keys and values of every message.
        library = logging.getLogger("aiokafka")
        library.setLevel(max(library.getEffectiveLevel(), logging.INFO))

    @property
    def slots(self) -> int:
        """How many records it takes now; 0 while the circuit is open."""
        return self._circuit.slots()

    @property
    def deciding(self) -> bool:
        """Whether it is about to show if it takes records: worth a short wait."""
        return self._circuit.state is State.PROBING

    async def run(self) -> None:
        """Until cancelled: build a producer, wait for its failure, throw it away, again."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                if await self._start():
                    await self._failed.wait()
                else:
                    self._circuit.failed(loop.time(), in_doubt=False)
                metrics.KAFKA_UP.set(0)
                await self._discard()
                await asyncio.sleep(self._circuit.wait_s(loop.time()))
        finally:
            metrics.KAFKA_UP.set(0)
            await self._discard()

    def publish(self, records: Sequence[Record]) -> Coroutine[None, None, list[Fate]]:
        """The fate of each, within the deadline and a little. Never raises; cancelling it leaves all in doubt."""
        self._circuit.took()  # now, not when the coroutine begins: others look at the slots before that
        return self._publish(self._producer, records)

    async def _publish(self, producer: AIOKafkaProducer | None, records: Sequence[Record]) -> list[Fate]:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._settings.kafka_deadline_s
        futures = [await self._hand_over(producer, record, deadline_s) for record in records]
        waited = [future for future in futures if isinstance(future, asyncio.Future)]
        if waited:
            # Never cancelled: a batch whose future is cancelled breaks the producer in other ways than it breaks itself.
            await asyncio.wait(waited, timeout=max(0.0, deadline_s - loop.time()))
        fates = [_fate(future) for future in futures]
        self._judge(producer, fates)
        return fates

    async def _hand_over(self, producer: AIOKafkaProducer | None, record: Record, deadline_s: float) -> "asyncio.Future[Any] | Fate":
        """The delivery's future. A `send` that is cancelled has not taken the record, but what it does then is not for us to rely on."""
        if producer is None or self._failed.is_set():
            return Fate.IN_DOUBT
        try:
            async with asyncio.timeout_at(deadline_s):
                future: asyncio.Future[Any] = await producer.send(
                    self._settings.topic,
                    value=record.data,
                    key=record.request_id.encode(),
                    partition=record.partition,
                    headers=_HEADERS,
                )
                future.add_done_callback(lambda late: late.cancelled() or late.exception())  # it may come when nobody asks any more
                return future
        except MessageSizeTooLargeError:
            return Fate.TOO_LARGE
        except Exception as error:  # noqa: BLE001 - whatever the library raises here, the record was not acknowledged
            self._say("a record could not be handed to Kafka", error)
            return Fate.IN_DOUBT

    def _judge(self, producer: AIOKafkaProducer | None, fates: list[Fate]) -> None:
        if producer is not self._producer or producer is None:
            return
        if any(fate is not Fate.ACKNOWLEDGED for fate in fates):
            self._failed.set()
            self._circuit.failed(asyncio.get_running_loop().time(), in_doubt=True)
        elif fates:
            self._said = ""
            self._circuit.acknowledged()

    async def _start(self) -> bool:
        self._failed.clear()
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                self._producer = producer = self._build()
                await producer.start()
                partitions = await producer.partitions_for(self._settings.topic)
        except Exception as error:  # noqa: BLE001 - unreachable, not allowed, no such topic: all mean that there is no Kafka now
            metrics.KAFKA_PRODUCERS.labels("failed").inc()
            self._say("Kafka is not available; records go to the intake, or wait in the spool", error)
            return False
        if not partitions:
            metrics.KAFKA_PRODUCERS.labels("failed").inc()
            self._say(f"Kafka has no topic {self._settings.topic}: create it", None)
            return False
        self.partitions = max(partitions) + 1
        metrics.KAFKA_PRODUCERS.labels("started").inc()
        metrics.KAFKA_UP.set(1)
        self._circuit.started()
        return True

    def _build(self) -> AIOKafkaProducer:
        settings = self._settings
        sasl = settings.kafka_security.startswith("SASL")
        return AIOKafkaProducer(
            bootstrap_servers=settings.kafka.split(",") if settings.kafka else [],
            client_id="clearpane-shipper",
            acks="all",
            enable_idempotence=True,
            compression_type="zstd",
            max_batch_size=_BATCH_BYTES,
            max_request_size=settings.kafka_record_bytes_max + _MESSAGE_OVERHEAD_BYTES,
            linger_ms=_LINGER_MS,
            request_timeout_ms=int(settings.kafka_deadline_s * 1000),
            metadata_max_age_ms=_METADATA_MAX_AGE_MS,
            security_protocol=settings.kafka_security,
            ssl_context=_tls(settings),
            sasl_mechanism=settings.kafka_sasl if sasl else "PLAIN",
            sasl_plain_username=settings.kafka_username if sasl else None,
            sasl_plain_password=settings.kafka_password if sasl else None,
        )

    async def _discard(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await producer.stop()
                return
        await _break(producer)

    def _say(self, what: str, error: Exception | None) -> None:
        """Once per kind of trouble, until it is over."""
        kind = f"{what}: {type(error).__name__}" if error else what
        if kind != self._said:
            self._said = kind
            log.warning("%s", kind)


def _fate(future: "asyncio.Future[Any] | Fate") -> Fate:
    if isinstance(future, Fate):
        return future
    if not future.done() or future.cancelled():
        return Fate.IN_DOUBT
    error = future.exception()
    if error is None:
        return Fate.ACKNOWLEDGED
    return Fate.TOO_LARGE if isinstance(error, MessageSizeTooLargeError) else Fate.IN_DOUBT


async def _break(producer: AIOKafkaProducer) -> None:
    """What `stop` would not do in time: end its task, fail what it holds, close its connections."""
    task = producer._sender.sender_task
    if task is not None:
        task.cancel()
        await asyncio.wait({task}, timeout=_STOP_TIMEOUT_S)
    _fail_batches(producer._message_accumulator)
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await producer.client.close()


def _fail_batches(accumulator: Any) -> None:
    """Else `stop`, which was cancelled but has a task that waits for them, never ends."""
    batches = [batch for waiting in accumulator._batches.values() for batch in waiting] + list(accumulator._pending_batches)
    accumulator.fail_all(ConnectionError())
    for batch in batches:
        batch._drain_waiter.exception()  # looked at, so that nothing is said of it


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if "SSL" not in settings.kafka_security:
        return None
    return ssl.create_default_context(cafile=str(settings.kafka_ca_file) if settings.kafka_ca_file else None)
