"""The consumer: takes records from Kafka and from HTTP, and keeps them in the lake."""

import asyncio
import gc
import logging
import socket
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from clearpane.contract.records import Row
from clearpane.runtime import child, memory
from clearpane.runtime.handover import Handover
from clearpane.settings import Settings
from clearpane.store import Store
from consumer.derive import BadOverlay, derive, prepare, row
from consumer.lake.chain import Lake
from consumer.lake.draft import Derivation
from consumer.lake.pending import Limits
from consumer.lake.probe import NotConditional, prove
from consumer.sources.intake import Intake, IntakeSettings, UnsafeAddress
from consumer.sources.kafka import KafkaSource

log = logging.getLogger(__name__)

Report = Callable[[dict[str, Any]], None]

# Of the time a proxy waits for a POST, this share is ours: the answer has to reach it.
DEADLINE_SHARE = 0.8


class NothingToDo(Exception):
    """The settings name no source of records, or no lake."""


async def run(
    settings: Settings,
    stopped: Awaitable[None],
    report: Report = lambda event: None,
    *,
    watch: bool = False,
    sock: socket.socket | None = None,
) -> None:
    """Until `stopped` returns.

    Reports {"event": "ready"} when records can be taken, and with `watch` {"event": "call", "row": ...} for
    each record stored. `sock`: a bound socket for the intake. Raises NothingToDo, NotConditional, StoreDenied,
    UnsafeAddress, BadOverlay, OSError (address in use).
    """
    stop = asyncio.ensure_future(stopped)
    serving = asyncio.create_task(_serve(settings, report, watch, sock))
    giving_back = asyncio.create_task(memory.giving_back())
    try:
        await asyncio.wait({stop, serving}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        for task in (serving, giving_back, stop):
            task.cancel()
        await asyncio.gather(serving, giving_back, stop, return_exceptions=True)


async def _serve(settings: Settings, report: Report, watch: bool, sock: socket.socket | None) -> None:
    """Until cancelled; what was started is stopped, each within its own deadline."""
    listening = settings.intake is not None or sock is not None
    lake = await _lake(settings, listening, (lambda row: report({"event": "call", "row": _json_ready(row)})) if watch else None)
    ready = _Once(lambda: report({"event": "ready"}))
    intake = Intake(lake, _intake_settings(settings), sock) if listening else None
    try:
        if intake is not None:
            await intake.start()
            ready()
        if settings.kafka is not None:
            await KafkaSource(lake, settings).run(ready)
        await asyncio.Event().wait()
    finally:
        if intake is not None:
            await intake.stop()


async def _lake(settings: Settings, listening: bool, stored: Callable[[Row], None] | None) -> Lake:
    if settings.lake is None:
        raise NothingToDo("no lake: set `lake` (CLEARPANE_LAKE, --lake) to a folder or s3://bucket/prefix")
    if settings.kafka is None and not listening:
        raise NothingToDo("no source of records: set `kafka` (brokers), `intake` (HOST:PORT to listen on), or both")
    store = Store.open(settings.lake)
    await prove(store)
    limits = Limits(records_max=settings.object_records_max, bytes_max=settings.object_bytes_max)
    return Lake(store=store, derivation=_derivation(settings), limits=limits, stored=stored)


class _Once:
    """Ready is said once: by the intake, or by Kafka where there is none."""

    def __init__(self, ready: Callable[[], None]) -> None:
        self._ready: Callable[[], None] | None = ready

    def __call__(self) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            ready()


def _intake_settings(settings: Settings) -> IntakeSettings:
    url = urlsplit(settings.intake or "http://127.0.0.1:0")
    if url.scheme == "https":
        raise NothingToDo("the intake itself speaks plain HTTP: give it http://HOST:PORT here, and put TLS in front of it")
    return IntakeSettings(
        host=url.hostname or "127.0.0.1",
        port=url.port or 0,
        secret=settings.intake_secret,
        # One record is taken whatever the batch: two bodies, each up to four times its size as a JSON string.
        bytes_max=max(4 * settings.post_bytes_max, 8 * settings.capture_bytes_max + (1 << 20)),
        deadline_s=settings.post_timeout_s * DEADLINE_SHARE,
    )


def _derivation(settings: Settings) -> Derivation:
    book = prepare(settings.price_overlay)
    gc.freeze()  # prices and encodings are not looked at in every full collection
    return Derivation(derive=lambda envelope: derive(envelope, book), row=row)


def _json_ready(found: Row) -> Row:
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool | dict | list | None) else str(value)


async def _child(handover: Handover, report: Report, stopped: Awaitable[None]) -> None:
    watch = bool(handover.switches.get("watch"))
    await run(handover.settings, stopped, report, watch=watch, sock=handover.socket("intake"))


if __name__ == "__main__":
    child.run(_child, refusals=(NothingToDo, BadOverlay, NotConditional, UnsafeAddress))
