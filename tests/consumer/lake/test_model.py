"""The protocol as a state machine: the real partition and chain, two or three consumers, and every order of steps and faults.

Whatever happens, one undisturbed consumer afterwards leaves a lake with each call once, in one chain. A second set of tests
leaves one rule of the protocol out and asserts that this very check notices: a check that cannot fail proves nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from clearpane.contract import lake as layout
from clearpane.store import AlreadyExists, Store, StoreUnavailable
from consumer.lake import chain as chains
from consumer.lake import patience
from consumer.lake.chain import Chain
from consumer.lake.draft import Derivation, Draft
from consumer.lake.ledger import Ledger
from consumer.lake.pending import Limits, Pending
from consumer.lake.tail import Tail
from consumer.sources import partition
from tests.consumer.lake.oracle import Judgement, judge
from tests.consumer.lake.world import Make, Outcome, Process, World

KINDS = ("call", "call", "call", "started", "poison", "copy", "copy", "in doubt", "late", "an hour", "hole")
CONSUMERS_MAX = 3
EXAMPLES_MAX = 1000  # in which a broken variant has to show
LIMITS = st.builds(Limits, records_max=st.sampled_from([1, 3, 100]), bytes_max=st.sampled_from([3000, 1 << 20]))
WHO = st.integers(0, CONSUMERS_MAX - 1)
WRITES = st.sampled_from(["calls", "calls", "calls", "index", "heads"])
MESSAGES = st.integers(1, 6)  # that come at once
STEPS_TO_A_WRITE_MAX = 60
SHARE = st.floats(0, 1)
PUBLISHED = st.lists(st.sampled_from(KINDS), min_size=1, max_size=6)


class Wrong(AssertionError):
    """The lake is not what it must be."""

    def __init__(self, found: Judgement) -> None:
        super().__init__(str(found))
        self.found = found


class Chains(RuleBasedStateMachine):
    """Bound to its fixtures by `bound`."""

    make: Make
    derivation: Derivation
    conditional = True
    harm_only = False  # a chain of a wrong form, but with each call once, passes
    world_now: World | None = None  # for the broken variants
    examples = 0

    def __init__(self) -> None:
        super().__init__()
        self.world = World(type(self).make, type(self).derivation, conditional=type(self).conditional)
        Chains.world_now = self.world
        Chains.examples += 1

    @initialize(kinds=PUBLISHED, one=LIMITS, other=LIMITS)
    def begin(self, kinds: list[str], one: Limits, other: Limits) -> None:
        self.publish(kinds)
        self.world.start(one)
        self.world.start(other)

    @rule(kinds=PUBLISHED)
    def publish(self, kinds: list[str]) -> None:
        for kind in kinds:
            self.world.broker.publish(kind)

    @precondition(lambda self: len(self.world.processes) < CONSUMERS_MAX)
    @rule(limits=LIMITS)
    def start(self, limits: Limits) -> None:
        self.world.start(limits)

    @precondition(lambda self: self.world.processes)
    @rule(who=WHO, steps=st.integers(1, 30), messages=MESSAGES)
    def work(self, who: int, steps: int, messages: int) -> None:
        """It stands wherever it is then: a zombie, if for long."""
        for _ in range(steps):
            if not self.world.step(self._consumer(who), messages):
                return

    @precondition(lambda self: self.world.processes)
    @rule(who=WHO, at=WRITES, messages=MESSAGES)
    def sleep(self, who: int, at: str, messages: int) -> None:
        """Right before a write: until it is given its next step."""
        self._goes_to(who, at, messages)

    @precondition(lambda self: self.world.processes)
    @rule(who=WHO, at=WRITES, outcome=st.sampled_from(["answer lost", "answer lost", "refused", "denied"]), messages=MESSAGES)
    def fail(self, who: int, at: str, outcome: Outcome, messages: int) -> None:
        if self._goes_to(who, at, messages):
            self.world.answer(self._consumer(who), outcome)

    @precondition(lambda self: self.world.processes)
    @rule(who=WHO, at=WRITES, carried_out=st.booleans(), messages=MESSAGES)
    def kill(self, who: int, at: str, carried_out: bool, messages: int) -> None:
        if self._goes_to(who, at, messages):
            self.world.kill(self._consumer(who))
            if carried_out:
                self.world.drift(-1)

    @precondition(lambda self: self.world.adrift)
    @rule(number=st.integers(0, 100))
    def a_write_of_the_dead_arrives(self, number: int) -> None:
        self.world.drift(number)

    @precondition(lambda self: self.world.processes)
    @rule(who=WHO)
    def rebalance(self, who: int) -> None:
        self.world.broker.owner = self._consumer(who)

    @rule(share=SHARE)
    def reset_the_group(self, share: float) -> None:
        self.world.broker.committed = round(share * self.world.broker.end * 1.2)

    @rule(share=SHARE)
    def retention(self, share: float) -> None:
        """Of what the lake has; at the very start, before there is a chain, of what there is."""
        broker = self.world.broker
        last = self._chain_end() if self.world.genesis is not None else broker.end
        broker.first = max(broker.first, round(share * last))

    @precondition(lambda self: self.world.genesis is not None and self.world.broker.end > self._chain_end())
    @rule(share=SHARE)
    def retention_overtakes(self, share: float) -> None:
        broker, end = self.world.broker, self._chain_end()
        broker.first = max(broker.first, end + 1 + round(share * (broker.end - end - 1)))

    @precondition(lambda self: self._chain_end() > 0)
    @rule(heads=st.booleans(), every=st.integers(1, 3))
    def somebody_deletes_what_can_be_made_again(self, heads: bool, every: int) -> None:
        kind = "heads/" if heads else "index/"
        self.world.vandalised |= not heads
        for key in [k for k in self.world.objects if k.startswith(kind)][::every]:
            del self.world.objects[key]

    def teardown(self) -> None:
        try:
            self._check()
        finally:
            self.world.close()

    def _check(self) -> None:
        goes_on = self.world.heal()
        broker, genesis = self.world.broker, self.world.genesis or 0
        end = max(genesis, self._chain_end())
        may_stand_still = end < broker.first  # Kafka has not what comes next
        wanted = [m for m in broker.messages if m.offset >= genesis and (goes_on or not may_stand_still or m.offset < end)]
        found = judge(self.world.objects, wanted, genesis, indexed=not self.world.vandalised)
        if found.lost or found.doubled or (found.chain and not self.harm_only):
            raise Wrong(found)

    def _goes_to(self, who: int, at: str, messages: int) -> bool:
        """Works until its next request writes to this folder; False: it never came there."""
        consumer = self._consumer(who)
        for _ in range(STEPS_TO_A_WRITE_MAX):
            if consumer.requests and consumer.requests[0].writes == at:
                return True
            if not self.world.step(consumer, messages):
                return False
        return False

    def _consumer(self, who: int) -> Process:
        return self.world.processes[who % len(self.world.processes)]

    def _chain_end(self) -> int:
        """By the objects alone."""
        manifests = (layout.parse_key(key) for key in self.world.objects if key.startswith("calls/"))
        last = max((found[1] for found in manifests if found), key=lambda place: place.start, default=None)
        return chains.manifest_of(self.world.objects[last.key("calls")], "").end if last else 0


@contextmanager
def hasten(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without pauses, without threads, in silence; a defect that a partition would survive by starting again is one here."""
    for name in ("FIRST_PAUSE_S", "PAUSE_S_MAX", "DENIED_PAUSE_S"):
        patch.setattr(patience, name, 0.0)
    patch.setattr(chains, "UNDECIDED_PAUSE_S", 0.0)

    async def at_once(function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    patch.setattr(asyncio, "to_thread", at_once)
    patch.setattr(partition, "BROKEN_PAUSE_S", float("nan"))  # sleeping so long is an error
    log = logging.getLogger("consumer")
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(logging.NOTSET)


Run = Callable[..., None]


@pytest.fixture
def run(envelope: Make, derivation: Derivation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    def play(examples: int, steps: int = 40, *, seeded: bool = False, **changes: Any) -> None:
        machine = type("Bound", (Chains,), {"make": staticmethod(envelope), "derivation": derivation, **changes})
        phases = [Phase.generate] if seeded else [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=seeded, database=None, phases=phases,
                suppress_health_check=list(HealthCheck), print_blob=True, report_multiple_bugs=False,
            ),
        )  # fmt: skip

    with hasten(monkeypatch):
        yield play


@pytest.mark.timeout(600)
def test_nothing_lost_nothing_doubled(run: Run, request: pytest.FixtureRequest) -> None:
    run(3000 if request.config.getoption("--full") else 150)


def without_condition(patch: pytest.MonkeyPatch) -> None:
    """The store ignores If-None-Match."""
    patch.setattr(Chains, "conditional", False)


def look_then_put(patch: pytest.MonkeyPatch) -> None:
    """Whether the key is free is asked first, and then it is written."""

    async def claim(store: Store, key: str, data: bytes) -> bool:
        if await store.size(key) is not None:
            return False
        await store.put(key, data)
        return True

    patch.setattr(chains, "_claim", claim)


def without_nonce(patch: pytest.MonkeyPatch) -> None:
    """`Exists already` is taken for `my batch is there`."""

    async def create(self: Chain, draft: Draft) -> bool:
        await patience.certain(lambda: chains._claim(self._store, draft.place.key("calls"), draft.data), "create")
        return True

    patch.setattr(Chain, "_create", create)


def next_unused_name(patch: pytest.MonkeyPatch) -> None:
    """A key that is taken is avoided."""

    async def create(self: Chain, draft: Draft) -> bool:
        for later in range(10**9):
            key = replace(draft.place, hour=draft.place.hour + timedelta(hours=later)).key("calls")
            if await patience.certain(lambda key=key: chains._claim(self._store, key, draft.data), "create"):  # type: ignore[misc]
                break
        return True

    patch.setattr(Chain, "_create", create)


def clock_in_the_key(patch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10**9))
    real = layout.place
    patch.setattr(layout, "place", lambda log, start, ms: real(log, start, ms + 3_600_000 * next(ticks)))


def doubt_is_a_yes(patch: pytest.MonkeyPatch) -> None:
    """A PUT without an answer is taken for done."""

    async def claim(store: Store, key: str, data: bytes) -> bool:
        try:
            await store.create(key, data)
        except AlreadyExists:
            return False
        except StoreUnavailable:
            return True
        return True

    patch.setattr(chains, "_claim", claim)


def position_of_the_group(patch: pytest.MonkeyPatch) -> None:
    """The first message is the one that Kafka's committed offset names."""
    real = Chain.open

    async def opened(*args: Any, **options: Any) -> Chain:
        chain = await real(*args, **options)
        assert Chains.world_now is not None
        if (committed := Chains.world_now.broker.committed) and committed <= Chains.world_now.broker.end:
            chain.tail = replace(chain.tail, end=committed, last_id=None)
        return chain

    patch.setattr(Chain, "open", staticmethod(opened))
    patch.setattr(chains, "check_follows", lambda *_: None)


def commit_before_put(patch: pytest.MonkeyPatch) -> None:
    position_of_the_group(patch)
    real = Chain.append

    async def append(self: Chain, pending: Pending) -> None:
        assert Chains.world_now is not None
        Chains.world_now.broker.committed = pending.end
        await real(self, pending)

    patch.setattr(Chain, "append", append)


def copies_kept(patch: pytest.MonkeyPatch) -> None:
    async def all_of_them(self: Ledger, candidates: list[Any], tail: Tail) -> list[Any]:
        return candidates

    patch.setattr(Ledger, "fresh", all_of_them)


def copies_of_this_life_only(patch: pytest.MonkeyPatch) -> None:
    """What earlier objects hold is not looked up."""

    async def none_of_them(self: Ledger, names: set[str], tail: Tail) -> set[str]:
        return set()

    patch.setattr(Ledger, "_stored", none_of_them)


def first_copies_believed(patch: pytest.MonkeyPatch) -> None:
    """That a call entered by its second copy is forgotten."""
    real = Tail.after
    patch.setattr(Tail, "after", lambda self, m, k, written: real(self, m, k, replace(written, second_copies=[])))


def no_head_at_the_beginning(patch: pytest.MonkeyPatch) -> None:
    """Each consumer begins where Kafka begins when it asks."""

    async def begun(store: Store, name: str, genesis: int) -> Tail:
        return Tail(log=name, genesis=genesis, end=genesis)

    patch.setattr(chains, "_begun", begun)


def listing_without_reading(patch: pytest.MonkeyPatch) -> None:
    """The end of the last object that a listing shows is taken to be one behind its start."""

    async def opened(lake: Any, name: str, *, genesis: Any = None, since: Any = None) -> Chain:
        found = await chains.listing.places(lake.store, name, "calls", since)
        start = found[-1].start + 1 if found else await genesis()
        return Chain(lake, Tail(log=name, genesis=start, end=start), since)

    patch.setattr(Chain, "open", staticmethod(opened))
    patch.setattr(chains, "check_follows", lambda *_: None)


BROKEN = (
    without_condition,
    look_then_put,
    without_nonce,
    next_unused_name,
    clock_in_the_key,
    doubt_is_a_yes,
    position_of_the_group,
    commit_before_put,
    copies_kept,
    copies_of_this_life_only,
    first_copies_believed,
    no_head_at_the_beginning,
    listing_without_reading,
)


@pytest.mark.parametrize("leave_out", BROKEN, ids=lambda found: found.__name__)
def test_each_rule_is_needed(run: Run, monkeypatch: pytest.MonkeyPatch, leave_out: Callable[[pytest.MonkeyPatch], None]) -> None:
    """Calls are lost or doubled, not only the chain's form is broken."""
    leave_out(monkeypatch)
    monkeypatch.setattr(Chains, "harm_only", True)
    monkeypatch.setattr(Chains, "examples", 0)
    with pytest.raises(Wrong) as caught:
        run(EXAMPLES_MAX, seeded=True)
    lost, doubled = len(caught.value.found.lost), len(caught.value.found.doubled)
    print(f"\n{leave_out.__name__}: {lost} lost, {doubled} doubled in schedule {Chains.examples}")
