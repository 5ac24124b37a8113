"""A world in which real consumers live: one partition and one object store, and every answer they get is decided by the test.

A consumer stands still at each request until it is answered, so every order of everybody's steps can be played: an answer lost
after the deed, a writer that dies, a zombie that wakes up late, a PUT of the dead that arrives in the end.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import orjson

from clearpane.contract.lake import head_key
from clearpane.store import AlreadyExists, Entry, NotFound, Store, StoreDenied, StoreUnavailable
from consumer.lake.chain import Lake
from consumer.lake.draft import Derivation
from consumer.lake.messages import Message
from consumer.lake.pending import Limits
from consumer.sources.partition import Pace, Partition

LOG = "k-t-0-0"
HOURS_BACK = 6
STEPS_MAX = 20_000  # of a consumer that nothing disturbs

Make = Callable[..., dict[str, Any]]
Outcome = Literal["done", "answer lost", "refused", "denied"]
T = TypeVar("T")
P = TypeVar("P", bound="Process")


@dataclass(eq=False)
class Request:
    """One request of one writer, on its way."""

    act: Callable[[], Any]
    writes: str | None  # the folder of the key it writes
    answer: "asyncio.Future[Any]"

    def resolve(self, outcome: Outcome) -> None:
        try:
            found = self.act() if outcome in ("done", "answer lost") else None
        except (AlreadyExists, NotFound) as error:
            self._fail(StoreUnavailable("the answer was lost") if outcome == "answer lost" else error)
            return
        if outcome == "done":
            self.answer.set_result(found)
        else:
            self._fail(StoreDenied("403") if outcome == "denied" else StoreUnavailable(outcome))

    def _fail(self, error: Exception) -> None:
        self.answer.set_exception(error)


@dataclass
class Broker:
    """One partition. Offsets have holes; `first` moves up with retention; what is committed may be anything."""

    make: Make
    messages: list[Message] = field(default_factory=list)
    envelopes: list[dict[str, Any]] = field(default_factory=list)  # of calls
    late: list[dict[str, Any]] = field(default_factory=list)  # first copies that are still on their way
    first: int = 0
    end: int = 0
    committed: int = 0
    owner: object = None

    def __post_init__(self) -> None:
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        self._latest_ms = int(hour.timestamp() * 1000)
        self._now_ms = self._latest_ms - HOURS_BACK * 3_600_000

    def publish(self, kind: str) -> None:
        if kind == "an hour":
            self._now_ms = min(self._now_ms + 3_600_000, self._latest_ms)
        elif kind == "hole":
            self.end += 2
        elif kind == "poison":
            self._append(b"poison")
        elif kind == "started":
            self._append(orjson.dumps(self._call(event="started")))
        elif kind == "call":
            self._keep(self._call())
        elif kind == "in doubt":
            self._keep(again := self._call(attempt=2))
            self.late.append(again | {"attempt": 1})
        elif kind == "late" and self.late:
            self._append(orjson.dumps(self.late.pop(0)))
        elif kind == "copy" and self.envelopes:
            chosen = self.envelopes[self.end * 7 % len(self.envelopes)]
            self._append(orjson.dumps(chosen | {"attempt": 2}))

    def commit(self, who: object, offset: int) -> bool:
        if who is not self.owner:
            return False
        self.committed = offset
        return True

    def _keep(self, envelope: dict[str, Any]) -> None:
        self.envelopes.append(envelope)
        self._append(orjson.dumps(envelope))

    def _append(self, value: bytes) -> None:
        self._now_ms = min(self._now_ms + 1000, self._latest_ms)
        self.messages.append(Message(self.end, self._now_ms, value))
        self.end += 1

    def _call(self, **changes: Any) -> dict[str, Any]:
        """Born by a clock that may be half an hour ahead."""
        moment = self._now_ms + (0, -10_000, 1_800_000)[self.end % 3]
        name = str(uuid.UUID(int=moment << 80 | 7 << 76 | 2 << 62 | self.end))
        return self.make(**({"request_id": name} | changes))


class Process:
    """One life; its way to the store and to Kafka is a queue of requests."""

    def __init__(self, world: "World", limits: Limits) -> None:
        self.world = world
        self.requests: deque[Request] = deque()
        self.alive = True
        self.tasks: set[asyncio.Task[Any]] = set()
        self.lake = Lake(store=Wire(self), derivation=world.derivation, limits=limits)

    async def ask(self, act: Callable[[], T], *, writes: str | None = None) -> T:
        request = Request(act, writes and writes.partition("/")[0], asyncio.get_running_loop().create_future())
        if self.alive:
            self.requests.append(request)
        found: T = await request.answer
        return found

    def deliver(self, count: int) -> bool:
        """What comes to it from outside; False: nothing."""
        return False

    def running(self) -> list["asyncio.Task[Any]"]:
        return list(self.tasks)


class Consumer(Process):
    """A group member with this partition."""

    def __init__(self, world: "World", limits: Limits) -> None:
        super().__init__(world, limits)
        self.position: int | None = None
        self.partition = Partition(self.lake, LOG, self, Pace(flush_s=0.0, gate=asyncio.Semaphore(1)))
        self.tasks.add(asyncio.ensure_future(self.partition.run()))

    async def bounds(self) -> tuple[int, int]:
        return await self.ask(lambda: (self.world.broker.first, self.world.broker.end))

    def begin(self, offset: int) -> None:
        self.position = offset

    def hold(self) -> None:
        self.position = None

    async def commit(self, offset: int) -> bool:
        return await self.ask(lambda: self.world.broker.commit(self, offset))

    def deliver(self, count: int) -> bool:
        """Up to so many messages from its position on; False: there are none for it."""
        if self.position is None or not self.partition.delivering:
            return False
        if self.position < self.world.broker.first:
            self.partition.reopen()
            return True
        found = [m for m in self.world.broker.messages if m.offset >= self.position][:count]
        if found:
            self.position = found[-1].offset + 1
            self.partition.offer(found)
        return bool(found)


class Wire(Store):
    """A process's way to the store."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world

    async def create(self, key: str, data: bytes) -> None:
        await self._process.ask(lambda: self._world.create(key, data), writes=key)

    async def put(self, key: str, data: bytes) -> None:
        await self._process.ask(lambda: self._world.put(key, data), writes=key)

    async def get(self, key: str) -> bytes:
        return await self._process.ask(lambda: self._world.get(key))

    async def size(self, key: str) -> int | None:
        return await self._process.ask(lambda: len(self._world.objects[key]) if key in self._world.objects else None)

    async def list(self, prefix: str, *, after: str | None = None) -> list[Entry]:
        return await self._process.ask(lambda: self._world.list(prefix))


class World:
    """`conditional` False: a store that ignores If-None-Match."""

    def __init__(self, make: Make, derivation: Derivation, *, conditional: bool = True) -> None:
        self.loop = asyncio.new_event_loop()
        self.broker = Broker(make)
        self.derivation = derivation
        self.objects: dict[str, bytes] = {}
        self.genesis: int | None = None  # what the head said when the chain began
        self.vandalised = False  # somebody deleted indexes
        self.processes: list[Process] = []
        self.adrift: list[Request] = []  # writes of the dead, still in the network
        self._conditional = conditional

    def create(self, key: str, data: bytes) -> None:
        if key in self.objects and self._conditional:
            raise AlreadyExists(key)
        self.put(key, data)

    def put(self, key: str, data: bytes) -> None:
        if key == head_key(LOG) and self.genesis is None:
            self.genesis = orjson.loads(data)["genesis"]
        self.objects[key] = data

    def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise NotFound(key)
        return self.objects[key]

    def list(self, prefix: str) -> list[Entry]:
        return [Entry(key, len(data)) for key, data in sorted(self.objects.items()) if key.startswith(prefix)]

    def start(self, limits: Limits) -> Consumer:
        consumer = self.born(lambda: Consumer(self, limits))
        self.broker.owner = consumer
        return consumer

    def born(self, make: Callable[[], P]) -> P:
        async def inside() -> P:
            return make()

        process = self._run(inside())
        self.processes.append(process)
        return process

    def answer(self, process: Process, outcome: Outcome = "done") -> bool:
        """Its oldest request; False: it waits for nothing."""
        if not process.requests:
            return False
        request = process.requests.popleft()
        request.resolve(outcome if request.writes else "done")  # what only reads is asked again in any case
        self._settle()
        return True

    def deliver(self, process: Process, count: int) -> bool:
        found = process.deliver(count)
        self._settle()
        return found

    def step(self, process: Process, messages: int) -> bool:
        """One answer, or where it waits for none its next messages; False: it has nothing to do."""
        return self.answer(process) or self.deliver(process, messages)

    def kill(self, process: Process) -> None:
        """SIGKILL. What it had sent is in the network still."""
        process.alive = False
        self.processes.remove(process)
        self.adrift += [request for request in process.requests if request.writes]
        process.requests.clear()
        for task in process.running():
            task.cancel()
        self._settle()

    def drift(self, number: int) -> None:
        """A write of the dead arrives."""
        request = self.adrift.pop(number % len(self.adrift))
        request.answer = self.loop.create_future()
        request.resolve("done")
        request.answer.exception()

    def heal(self) -> bool:
        """Everybody dies, and one consumer works undisturbed until nothing is left. False: it stands still."""
        for process in list(self.processes):
            self.kill(process)
        last = self.start(Limits(records_max=100, bytes_max=1 << 20))
        for _ in range(STEPS_MAX):
            if not self.step(last, 7):
                break
        else:
            raise AssertionError("a consumer that nothing disturbs never comes to its end")
        return last.partition.delivering

    def close(self) -> None:
        for process in list(self.processes):
            self.kill(process)
        self.loop.close()

    def _settle(self) -> None:
        self._run(asyncio.sleep(0))

    def _run(self, work: Awaitable[T]) -> T:
        """And then until everybody stands still."""

        async def whole() -> T:
            found = await work
            while self.loop._ready:  # type: ignore[attr-defined]
                await asyncio.sleep(0)
            return found

        return self.loop.run_until_complete(whole())
