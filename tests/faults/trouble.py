"""Random trouble for a stage: faults of its processes, and at the same time faults of what stands around them.

In each of the two rows one follows another: each kind once, then at random; each is gone again before the next begins.
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.conftest import Broker
from tests.faults.front import Front
from tests.faults.growth import descendants, role_of
from tests.faults.stage import Stage
from tests.faults.wire import Wire

PAUSE_S = (1.0, 4.0)  # between two faults

Fault = Callable[[], Awaitable[None]]


class Trouble:
    """The first consumer, the oldest worker and its recorder are never killed, the shipper not in the last half of the load, so that
    their memory can be looked at over a long time. `store` and `intake` stand before both of them."""

    def __init__(self, stage: Stage, broker: Broker, wire: Wire, store: Front, intake: Front, dice: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self.worker_deaths: list[float] = []  # monotonic
        self._stage, self._broker, self._wire, self._dice = stage, broker, wire, dice
        self._store, self._intake = store, intake

    async def run(self, load: "asyncio.Task[None]") -> None:
        """Until the load has ended; the last fault is over then."""
        processes: list[Fault] = [
            self.worker_killed, self.recorder_killed, self.shipper_killed,
            self.consumer_killed, self.consumer_replaced, self.consumer_frozen,
        ]  # fmt: skip
        around: list[Fault] = [
            self.broker_killed, self.broker_frozen, self.broker_silent, self.broker_reset, self.broker_slow,
            self.intake_503, self.intake_answers_lost, self.intake_slow, self.intake_cut,
            self.store_503, self.store_answers_lost, self.store_slow, self.store_cut,
        ]  # fmt: skip
        async with asyncio.TaskGroup() as rows:
            for faults in (processes, around):
                rows.create_task(self._row(load, faults))

    async def _row(self, load: "asyncio.Task[None]", faults: list[Fault]) -> None:
        first = self._dice.sample(faults, len(faults))
        while not load.done():
            await asyncio.wait({load}, timeout=self._dice.uniform(*PAUSE_S))
            fault = first.pop() if first else self._dice.choice(faults)
            if load.done() or (fault == self.shipper_killed and self._half_over):
                continue
            print(f"{len(self._stage.load.outcomes):>8,} calls: {fault.__name__.replace('_', ' ')}", flush=True)
            await fault()
            self.counts[fault.__name__] += 1

    @property
    def _half_over(self) -> bool:
        return len(self._stage.load.outcomes) > self._stage.load.calls / 2

    async def worker_killed(self) -> None:
        workers = self._workers()
        if len(workers) > 1:
            self.worker_deaths.append(time.monotonic())
            os.kill(workers[-1], signal.SIGKILL)

    async def recorder_killed(self) -> None:
        workers = self._workers()
        if len(workers) > 1:
            for recorder in _found(workers[-1:], "recorder"):
                os.kill(recorder, signal.SIGKILL)

    async def shipper_killed(self) -> None:
        for shipper in _found([self._stage.proxy.process.pid], "shipper"):
            os.kill(shipper, signal.SIGKILL)

    def _workers(self) -> list[int]:
        """The oldest first."""
        return sorted(_found([self._stage.proxy.process.pid], "worker"), key=_started)

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

    async def intake_503(self) -> None:
        await self._intake_fault(status=503)

    async def intake_answers_lost(self) -> None:
        await self._intake_fault(drop=True)

    async def intake_slow(self) -> None:
        await self._intake_fault(delay_s=self._dice.uniform(0.2, 3.0))

    async def intake_cut(self) -> None:
        await self._intake_fault(cut_request=True)

    async def store_503(self) -> None:
        await self._store_fault(status=503)

    async def store_answers_lost(self) -> None:
        await self._store_fault(drop=True)

    async def store_slow(self) -> None:
        await self._store_fault(delay_s=self._dice.uniform(0.2, 2.0))

    async def store_cut(self) -> None:
        await self._store_fault(cut_request=True)

    async def _intake_fault(self, **how: object) -> None:
        """With Kafka away for longer than its deadline: otherwise nothing goes to the intake."""
        self._intake.add(name="soak", method="POST", folder="records", share=self._dice.uniform(0.2, 1.0), **how)
        self._broker.pause()
        await asyncio.sleep(self._dice.uniform(7, 12))
        self._intake.clear()
        await asyncio.sleep(self._dice.uniform(0, 3))
        self._broker.resume()

    async def _store_fault(self, **how: object) -> None:
        for folder in ("calls", "index", "heads"):
            self._store.add(name="soak", folder=folder, share=self._dice.uniform(0.2, 1.0), **how)
        await asyncio.sleep(self._dice.uniform(1, 8))
        self._store.clear()


def _found(roots: list[int], role: str) -> list[int]:
    return [pid for pid in descendants(roots) if role_of(pid) == role]


def _started(pid: int) -> int:
    """Ticks since the machine's start; 0 for a process that is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0
