"""Random trouble for a stage: one fault after another, each gone again before it returns."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from tests.conftest import Broker
from tests.faults.front import Front
from tests.faults.stage import Stage
from tests.faults.wire import Wire

PAUSE_S = (2.0, 6.0)  # between two faults


class Trouble:
    """The first consumer and the oldest worker are never killed, so that their memory can be looked at over the whole time."""

    def __init__(self, stage: Stage, broker: Broker, wire: Wire, front: Front, dice: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self.worker_deaths: list[float] = []  # monotonic
        self._stage, self._broker, self._wire, self._front, self._dice = stage, broker, wire, front, dice

    async def run(self, load: "asyncio.Task[None]") -> None:
        """Until the load has ended; the last fault is over then."""
        faults: list[Callable[[], Awaitable[None]]] = [
            self.worker_killed, self.shipper_killed, self.consumer_killed, self.consumer_replaced, self.consumer_frozen,
            self.broker_killed, self.broker_frozen, self.broker_silent, self.broker_reset, self.broker_slow,
            self.store_503, self.store_answers_lost, self.store_slow, self.store_cut,
        ]  # fmt: skip
        while not load.done():
            await asyncio.wait({load}, timeout=self._dice.uniform(*PAUSE_S))
            fault = self._dice.choice(faults)
            print(f"{len(self._stage.load.outcomes):>8,} calls: {fault.__name__.replace('_', ' ')}", flush=True)
            await fault()
            self.counts[fault.__name__] += 1

    async def worker_killed(self) -> None:
        workers = self._stage.proxy.children("proxy.worker")
        if len(workers) > 1:
            self.worker_deaths.append(time.monotonic())
            os.kill(workers[-1], signal.SIGKILL)

    async def shipper_killed(self) -> None:
        self._stage.proxy.kill_child("proxy.shipper")

    async def consumer_killed(self) -> None:
        self._stage.members[-1].kill()
        await self._stage.member().ready()

    async def consumer_replaced(self) -> None:
        await self._stage.stopped(self._stage.members[-1])
        await self._stage.member().ready()

    async def consumer_frozen(self) -> None:
        """Mostly for longer than its session."""
        member = self._dice.choice([self._stage.members[0], self._stage.members[-1]])
        member.signal(signal.SIGSTOP)
        await asyncio.sleep(self._dice.uniform(4, 10))
        member.signal(signal.SIGCONT)

    async def broker_killed(self) -> None:
        self._broker.kill()
        await asyncio.sleep(self._dice.uniform(0, 5))
        await self._broker.start()

    async def broker_frozen(self) -> None:
        self._broker.pause()
        await asyncio.sleep(self._dice.uniform(1, 9))
        self._broker.resume()

    async def broker_silent(self) -> None:
        self._wire.down.silence()
        await asyncio.sleep(self._dice.uniform(1, 9))
        self._wire.reset()
        self._wire.down.speak()

    async def broker_reset(self) -> None:
        self._wire.reset()

    async def broker_slow(self) -> None:
        self._wire.up.latency_s = self._wire.down.latency_s = self._dice.uniform(0.05, 0.5)
        await asyncio.sleep(self._dice.uniform(1, 6))
        self._wire.up.latency_s = self._wire.down.latency_s = 0.0

    async def store_503(self) -> None:
        await self._store_fault(status=503)

    async def store_answers_lost(self) -> None:
        await self._store_fault(drop=True)

    async def store_slow(self) -> None:
        await self._store_fault(delay_s=self._dice.uniform(0.2, 2.0))

    async def store_cut(self) -> None:
        await self._store_fault(cut_request=True)

    async def _store_fault(self, **how: object) -> None:
        for folder in ("calls", "index", "heads"):
            self._front.add(name="soak", folder=folder, share=self._dice.uniform(0.2, 1.0), **how)
        await asyncio.sleep(self._dice.uniform(1, 8))
        self._front.clear()
