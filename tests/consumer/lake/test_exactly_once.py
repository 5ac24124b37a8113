"""The protocol under random schedules: the real chain code over a store in memory that loses answers, refuses,
conflicts, and lets a writer die or sleep at any request. Nothing may be lost, nothing doubled.

Each rule that is left out must break it: those variants are here too, as a check of the check.
"""

import asyncio
import gzip
import logging
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from clearpane.contract import lake as layout
from clearpane.contract import members
from clearpane.store import AlreadyExists, Entry, NotFound, Store, StoreUnavailable
from consumer.lake import chain as chains
from consumer.lake import patience
from consumer.lake.chain import Chain, Lake
from consumer.lake.draft import Derivation
from consumer.lake.ledger import Ledger
from consumer.lake.messages import Message, decode
from consumer.lake.pending import Limits, Pending

LOG = "k-t-0-0"
MESSAGES = 24
SCHEDULES = 160
Make = Callable[..., dict[str, Any]]


class Died(Exception):
    """SIGKILL at this request."""


class Memory(Store):
    """What a store keeps; survives its clients."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.vandalised = False  # somebody deleted heads or indexes


class Faulty(Store):
    """One writer's way to the store. Before and after each request anything may happen."""

    def __init__(self, memory: Memory, dice: random.Random, *, conditional: bool = True) -> None:
        self._memory = memory
        self._dice = dice
        self._conditional = conditional
        self.faults = 0.25

    async def _before(self) -> None:
        for _ in range(self._dice.randrange(4)):
            await asyncio.sleep(0)  # another writer's turn: this is also how long a zombie sleeps
        roll = self._dice.random()
        if roll < self.faults * 0.2:
            raise Died
        if roll < self.faults * 0.6:
            raise StoreUnavailable("not carried out")

    def _after(self) -> None:
        roll = self._dice.random()
        if roll < self.faults * 0.2:
            raise Died
        if roll < self.faults * 0.6:
            raise StoreUnavailable("the answer was lost")

    async def create(self, key: str, data: bytes) -> None:
        await self._before()
        if key in self._memory.objects and self._conditional:
            raise AlreadyExists(key)
        self._memory.objects[key] = data
        self._after()

    async def put(self, key: str, data: bytes) -> None:
        await self._before()
        self._memory.objects[key] = data
        self._after()

    async def get(self, key: str) -> bytes:
        await self._before()
        if key not in self._memory.objects:
            raise NotFound(key)
        return self._memory.objects[key]

    async def size(self, key: str) -> int | None:
        await self._before()
        return len(self._memory.objects[key]) if key in self._memory.objects else None

    async def list(self, prefix: str, *, after: str | None = None) -> list[Entry]:
        await self._before()
        return [Entry(key, len(data)) for key, data in sorted(self._memory.objects.items()) if key.startswith(prefix)]


def born(now_ms: int, dice: random.Random) -> str:
    """A UUIDv7 of that moment, by a clock that may be half an hour ahead."""
    moment = now_ms + dice.choice([0, -10_000, 1_800_000])
    return str(uuid.UUID(int=moment << 80 | 7 << 76 | dice.getrandbits(12) << 64 | 2 << 62 | dice.getrandbits(62)))


def the_log(dice: random.Random, make: Make) -> list[Message]:
    """Messages with everything that a partition holds: `started`, poison, second copies, a new hour, holes in the offsets."""
    envelopes: list[dict[str, Any]] = []
    now_ms = int(time.time() * 1000) - 2 * 3_600_000
    found, offset = [], dice.randrange(5)
    for _ in range(MESSAGES):
        roll = dice.random()
        if envelopes and roll < 0.25:
            value = dice.choice(envelopes) | {"attempt": 2}
        elif envelopes and roll < 0.3:
            # Of two copies at least one says so, whichever comes first.
            again = make(attempt=2, request_id=born(now_ms, dice))
            envelopes.append(again)
            value = again
        elif roll < 0.4:
            value = make(event="started", request_id=born(now_ms, dice))
        else:
            value = make(request_id=born(now_ms, dice))
            envelopes.append(value)
        raw = b"poison" if dice.random() < 0.05 else orjson.dumps(value)
        found.append(Message(offset, now_ms, raw))
        now_ms += dice.choice([0, 1000, 1000, 900_000])
        offset += dice.choice([1, 1, 1, 3])
    late = [e for e in envelopes if e["attempt"] == 2]
    return found + [Message(offset + n, now_ms, orjson.dumps(e | {"attempt": 1})) for n, e in enumerate(late)]


async def consume(lake: Lake, messages: list[Message], dice: random.Random) -> None:
    """One life of a consumer: from the lake's tail to the end of the log, in batches of its own choice."""
    chain = await Chain.open(lake, LOG, genesis=lambda: _first(messages))
    pending = Pending(end=chain.tail.end)
    for message in messages:
        pending.add(message.offset, decode(message))
        if dice.random() < 0.3:
            await chain.append(pending)
    await chain.append(pending)


async def _first(messages: list[Message]) -> int:
    return messages[0].offset


async def schedule(seed: int, make: Make, derivation: Derivation, *, conditional: bool = True) -> tuple[Memory, list[Message]]:
    dice = random.Random(seed)
    memory, messages = Memory(), the_log(dice, make)

    def lake(faults: float) -> Lake:
        store = Faulty(memory, dice, conditional=conditional)
        store.faults = faults
        limits = Limits(records_max=dice.choice([1, 3, 100]), bytes_max=dice.choice([2000, 1 << 20]))
        return Lake(store=store, derivation=derivation, limits=limits)

    async def owner() -> None:
        for _ in range(dice.randrange(1, 6)):
            try:
                await consume(lake(0.25), messages[: dice.randrange(1, len(messages) + 1)], dice)
            except Died:
                continue
            if dice.random() < 0.2:
                memory.vandalised = True
                for key in [k for k in memory.objects if k.startswith(("heads/", "index/")) and dice.random() < 0.3]:
                    del memory.objects[key]

    await asyncio.gather(owner(), owner(), return_exceptions=False)
    await consume(lake(0.0), messages, dice)
    return memory, messages


def faults_of(memory: Memory, messages: list[Message]) -> list[str]:
    """What is wrong with the lake: by the oracle, which knows the log and nothing of the chain's code."""
    expected = Counter(e["request_id"] for e in map(_completed, messages) if e is not None)
    wanted = dict.fromkeys(expected, 1)
    poison = sum(message.value == b"poison" for message in messages)
    found: Counter[str | None] = Counter()
    offsets: Counter[int] = Counter()
    end, previous = messages[0].offset, None
    problems = []
    for key in sorted((k for k in memory.objects if k.startswith("calls/")), key=lambda k: k.rpartition("-")[2]):
        data = memory.objects[key]
        manifest, _ = members.unseal(data)
        if (manifest.start, manifest.previous_sha256) != (end, previous):
            problems.append(f"{key} does not follow")
        end, previous = manifest.end, manifest.sha256
        records = [orjson.loads(line) for line in gzip.decompress(data).splitlines()]
        found.update(r["request_id"] for r in records)
        offsets.update(r["lake"]["offset"] for r in records)
        parsed = layout.parse_key(key)
        assert parsed is not None
        if parsed[1].key("index") not in memory.objects and not memory.vandalised:
            problems.append(f"{key} has no index")
    if found.pop(None, 0) != poison:
        problems.append("poison is lost or doubled")
    problems += [f"{name}: {found[name]} times" for name in wanted | found if found[name] != wanted.get(name, 0)]
    return problems + [f"offset {offset} twice" for offset, count in offsets.items() if count > 1]


def _completed(message: Message) -> dict[str, Any] | None:
    found = None if message.value == b"poison" else orjson.loads(message.value)
    return found if found and found["event"] == "completed" else None


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("FIRST_PAUSE_S", "PAUSE_S_MAX", "DENIED_PAUSE_S"):
        monkeypatch.setattr(patience, name, 0.0)
    monkeypatch.setattr(chains, "UNDECIDED_PAUSE_S", 0.0)

    async def at_once(function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    monkeypatch.setattr(asyncio, "to_thread", at_once)
    logging.getLogger("consumer").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("consumer").setLevel(logging.NOTSET)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("block", range(4))
async def test_nothing_lost_nothing_doubled(block: int, envelope: Make, derivation: Derivation) -> None:
    for seed in range(block * SCHEDULES // 4, (block + 1) * SCHEDULES // 4):
        memory, messages = await schedule(seed, envelope, derivation)
        assert faults_of(memory, messages) == [], f"seed {seed}"


async def _broken_share(envelope: Make, derivation: Derivation, **how: bool) -> float:
    broken = 0
    for seed in range(20):
        try:
            broken += bool(faults_of(*await schedule(seed, envelope, derivation, **how)))
        except Exception:  # noqa: BLE001  # the chain noticed
            broken += 1
    return broken / 20


@pytest.mark.usefixtures("hasty")
class TestEachRuleIsNeeded:
    async def test_conditional_put(self, envelope: Make, derivation: Derivation) -> None:
        assert await _broken_share(envelope, derivation, conditional=False) > 0.2

    async def test_own_nonce(self, envelope: Make, derivation: Derivation, monkeypatch: pytest.MonkeyPatch) -> None:
        """`Exists already` taken for `my batch is there`."""
        real = chains.manifest_of

        def mine(data: bytes, key: str) -> Any:
            return replace(real(data, key), nonce=_Anything())

        monkeypatch.setattr(chains, "manifest_of", mine)
        assert await _broken_share(envelope, derivation) > 0.2

    async def test_clock_in_key(self, envelope: Make, derivation: Derivation, monkeypatch: pytest.MonkeyPatch) -> None:
        ticks = iter(range(10**9))
        real = layout.place
        monkeypatch.setattr(layout, "place", lambda log, start, ms: real(log, start, ms + 3_600_000 * next(ticks)))
        assert await _broken_share(envelope, derivation) > 0.2

    async def test_copies_looked_up(self, envelope: Make, derivation: Derivation, monkeypatch: pytest.MonkeyPatch) -> None:
        async def all_of_them(self: Ledger, candidates: list[Any], tail: Any) -> list[Any]:
            return candidates

        monkeypatch.setattr(Ledger, "fresh", all_of_them)
        assert await _broken_share(envelope, derivation) > 0.2

    async def test_index_looked_up(self, envelope: Make, derivation: Derivation, monkeypatch: pytest.MonkeyPatch) -> None:
        async def none_of_them(self: Ledger, names: set[str], tail: Any) -> set[str]:
            return set()

        monkeypatch.setattr(Ledger, "_stored", none_of_them)
        assert await _broken_share(envelope, derivation) > 0.2

    async def test_rewritten_kept(self, envelope: Make, derivation: Derivation, monkeypatch: pytest.MonkeyPatch) -> None:
        real = chains.Tail.after
        monkeypatch.setattr(chains.Tail, "after", lambda self, m, k, written: real(self, m, k, replace(written, second_copies=[])))
        assert await _broken_share(envelope, derivation) > 0.2


class _Anything:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0
