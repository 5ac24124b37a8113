"""A consumer of its own process, with the shortest session that a broker allows, short pauses, and a place to die at.

    python -m tests.faults.member SETTINGS [--metrics PORT] [--die WHEN:WHAT:NUMBER]

SETTINGS is JSON. WHEN is before or after, WHAT `calls`, `index` or `heads` (a write to that folder) or `commit`.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import prometheus_client

from clearpane.runtime import logs
from clearpane.settings import Settings
from clearpane.store import Store, StoreError
from consumer import service
from consumer.lake import patience
from consumer.lake.probe import NotConditional
from consumer.sources import kafka

SESSION_TIMEOUT_MS, HEARTBEAT_MS = 6000, 500
DENIED_PAUSE_S = 2.0


class Death:
    """SIGKILL of this very process at a named place."""

    def __init__(self, place: str) -> None:
        self._when, self._what, number = place.split(":")
        self._number = int(number)
        self._passed: Counter[str] = Counter()

    async def around(self, what: str, work: Callable[[], Awaitable[Any]]) -> Any:
        self._pass("before", what)
        found = await work()
        self._pass("after", what)
        return found

    def _pass(self, when: str, what: str) -> None:
        if (when, what) == (self._when, self._what):
            self._passed[what] += 1
            if self._passed[what] == self._number:
                os.kill(os.getpid(), signal.SIGKILL)


def install(death: Death) -> None:
    create, put, commit = Store.create, Store.put, kafka._KafkaPort.commit

    async def creating(self: Store, key: str, data: bytes) -> None:
        await death.around(key.partition("/")[0], lambda: create(self, key, data))

    async def putting(self: Store, key: str, data: bytes) -> None:
        await death.around(key.partition("/")[0], lambda: put(self, key, data))

    async def committing(self: Any, offset: int) -> bool:
        found: bool = await death.around("commit", lambda: commit(self, offset))
        return found

    Store.create, Store.put, kafka._KafkaPort.commit = creating, putting, committing  # type: ignore[method-assign]


async def _until_stopped() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("settings", type=orjson.loads)
    parser.add_argument("--metrics", type=int)
    parser.add_argument("--die", type=Death)
    arguments = parser.parse_args()
    patience.DENIED_PAUSE_S = DENIED_PAUSE_S
    kafka.SESSION_TIMEOUT_MS, kafka.HEARTBEAT_MS = SESSION_TIMEOUT_MS, HEARTBEAT_MS
    logs.start("info")
    if arguments.metrics:
        prometheus_client.start_http_server(arguments.metrics, "127.0.0.1")
    if arguments.die:
        install(arguments.die)
    settings = Settings(**{**arguments.settings, "data": Path(arguments.settings["data"])})
    try:
        asyncio.run(service.run(settings, _until_stopped(), lambda event: print(event["event"], flush=True)))
    except (NotConditional, StoreError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    # Threads of obstore and pyarrow can abort an interpreter that is torn down.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
