"""The same for one spool's HTTP log: two intakes, a shipper that posts what was not acknowledged again, in other batches and at
another intake, while earlier POSTs are still under way, given up, or their intake is dead."""

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from clearpane.contract.envelope import SCHEMA, SCHEMA_HEADER
from clearpane.contract.lake import parse_key
from consumer.lake import chain as chains
from consumer.lake.draft import Derivation
from consumer.lake.messages import Message
from consumer.lake.pending import Limits
from consumer.sources.intake import Intake, IntakeSettings
from tests.consumer.lake.oracle import Judgement, judge
from tests.consumer.lake.test_model import LIMITS, WRITES, hasten
from tests.consumer.lake.world import Make, Outcome, Process, World

INTAKES = 2
# Born an hour ago: a log is listed from its spool's birth on.
SPOOL = f"{int(time.time() * 1000) - 3_600_000:012x}7e5f8091a2b3c4d5e6f7"
WHO = st.integers(0, INTAKES - 1)
STEPS_TO_A_WRITE_MAX = 60
SETTINGS = IntakeSettings(host="127.0.0.1", port=0, secret=None, bytes_max=1 << 24, deadline_s=1.0)


class Server(Process):
    """One consumer with its intake; the POSTs that it has not answered."""

    def __init__(self, world: World, limits: Limits, acknowledged: Callable[[int], None]) -> None:
        super().__init__(world, limits)
        self.intake = Intake(self.lake, SETTINGS)
        self.defects: list[BaseException] = []
        self._acknowledged = acknowledged

    def post(self, first: int, lines: list[bytes]) -> None:
        headers = {SCHEMA_HEADER: SCHEMA}
        request: Any = SimpleNamespace(match_info={"spool": SPOOL, "first": str(first)}, headers=headers)

        async def answered() -> None:
            self._acknowledged(await self.intake._store(request, b"\n".join(lines) + b"\n"))

        task = self.world.loop.create_task(answered())
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.defects.append(error)

    def running(self) -> list["asyncio.Task[Any]"]:
        return [*self.tasks, *self.intake._writes]

    def give_up(self) -> None:
        """The deadline of each POST is over; what they began goes on."""
        for task in self.tasks:
            task.cancel()


class Intakes(RuleBasedStateMachine):
    make: Make
    derivation: Derivation
    conditional = True

    def __init__(self) -> None:
        super().__init__()
        self.world = World(type(self).make, type(self).derivation, conditional=type(self).conditional)
        self.lines: list[bytes] = []
        self.acknowledged = 0

    @initialize(limits=LIMITS)
    def begin(self, limits: Limits) -> None:
        for _ in range(INTAKES):
            self._start(limits)

    @rule(count=st.integers(1, 8))
    def record(self, count: int) -> None:
        self.lines += [orjson.dumps(type(self).make(source=SPOOL, sequence=len(self.lines) + n)) for n in range(count)]

    @precondition(lambda self: self.lines)
    @rule(who=WHO, back=st.integers(0, 5), count=st.integers(1, 8))
    def post(self, who: int, back: int, count: int) -> None:
        """From what is acknowledged on, or from before it: a shipper that was killed knows less than the lake."""
        first = max(0, self.acknowledged - back)
        if lines := self.lines[first : first + count]:
            self._server(who).post(first, lines)
            self.world.step(self._server(who), 0)

    @rule(who=WHO, steps=st.integers(1, 30))
    def work(self, who: int, steps: int) -> None:
        for _ in range(steps):
            if not self.world.step(self._server(who), 0):
                return

    @rule(who=WHO, at=WRITES, outcome=st.sampled_from(["answer lost", "refused", "denied"]))
    def fail(self, who: int, at: str, outcome: Outcome) -> None:
        if self._goes_to(who, at):
            self.world.answer(self._server(who), outcome)

    @rule(who=WHO)
    def give_up(self, who: int) -> None:
        self._server(who).give_up()
        self.world.step(self._server(who), 0)

    @rule(who=WHO, at=WRITES, carried_out=st.booleans(), limits=LIMITS)
    def kill(self, who: int, at: str, carried_out: bool, limits: Limits) -> None:
        if self._goes_to(who, at):
            self.world.kill(self._server(who))
            if carried_out:
                self.world.drift(-1)
            self._start(limits)

    @precondition(lambda self: self.world.adrift)
    @rule(number=st.integers(0, 100))
    def a_write_of_the_dead_arrives(self, number: int) -> None:
        self.world.drift(number)

    @invariant()
    def what_is_acknowledged_stands_in_the_lake(self) -> None:
        assert self.acknowledged <= self._chain_end()

    @invariant()
    def no_post_ends_in_an_error(self) -> None:
        for number in range(len(self.world.processes)):
            assert self._server(number).defects == []

    def teardown(self) -> None:
        try:
            self._check()
        finally:
            self.world.close()

    def _check(self) -> None:
        for process in list(self.world.processes):
            self.world.kill(process)
        last = self._start(Limits(records_max=100, bytes_max=1 << 20))
        if self.lines[self.acknowledged :]:
            last.post(self.acknowledged, self.lines[self.acknowledged :])
            self.world.step(last, 0)  # it has begun
        while self.world.step(last, 0):
            pass
        assert self.acknowledged == len(self.lines)
        found = judge(self.world.objects, [Message(n, 0, line) for n, line in enumerate(self.lines)], 0)
        assert found == Judgement()

    def _start(self, limits: Limits) -> Server:
        return self.world.born(lambda: Server(self.world, limits, self._acknowledge))

    def _acknowledge(self, end: int) -> None:
        self.acknowledged = max(self.acknowledged, end)

    def _server(self, who: int) -> Server:
        found = self.world.processes[who]
        assert isinstance(found, Server)
        return found

    def _goes_to(self, who: int, at: str) -> bool:
        server = self._server(who)
        for _ in range(STEPS_TO_A_WRITE_MAX):
            if server.requests and server.requests[0].writes == at:
                return True
            if not self.world.step(server, 0):
                return False
        return False

    def _chain_end(self) -> int:
        found = [parsed[1] for key in self.world.objects if key.startswith("calls/") and (parsed := parse_key(key))]
        last = max(found, key=lambda place: place.start, default=None)
        return chains.manifest_of(self.world.objects[last.key("calls")], "").end if last else 0


def play(machine: Any, examples: int, **how: Any) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=40, deadline=None, database=None, suppress_health_check=list(HealthCheck),
            print_blob=True, report_multiple_bugs=False, **how,
        ),
    )  # fmt: skip


@pytest.mark.timeout(600)
def test_each_record_once_and_none_acknowledged_before(
    envelope: Make, derivation: Derivation, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    machine = type("Bound", (Intakes,), {"make": staticmethod(envelope), "derivation": derivation})
    with hasten(monkeypatch):
        play(machine, 1000 if request.config.getoption("--full") else 40)


def test_a_store_without_the_condition_is_seen(envelope: Make, derivation: Derivation, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = type("Bound", (Intakes,), {"make": staticmethod(envelope), "derivation": derivation, "conditional": False})
    with hasten(monkeypatch), pytest.raises(AssertionError):
        play(machine, 300, phases=[Phase.generate], derandomize=True)
