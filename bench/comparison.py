"""The rounds: every target meets each scenario in turn, always started anew, and a disturbed run is done again."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench import machine, processes
from bench.scenarios import SCENARIOS, LoadFailed, Result, Scenario, deliver, measure
from bench.serving import NotStarted, Running, running
from bench.targets import OWN, PROVIDER, Target

# A run beside a busier machine is done again, twice at most; the quietest counts.
OTHERS_MAX, TRIES, PATIENCE_S = 0.15, 3, 15.0


@dataclass(slots=True)
class Comparison:
    """`patient`: waits for a quiet machine, and does disturbed runs again."""

    targets: list[Target]
    scenarios: list[str]
    number_of_rounds: int
    seconds: float
    calls: int
    patient: bool
    given_up: dict[str, str] = field(default_factory=dict)  # peers that failed on the way, and how

    def rounds(self) -> Iterator[Result]:
        """Raises NotStarted and LoadFailed when one of our own targets fails; a peer that does is given up."""
        machine.raise_file_limit()
        load_core, target_core = machine.cores()
        os.sched_setaffinity(0, {load_core})
        with running(PROVIDER, load_core) as provider:
            for number in range(self.number_of_rounds):
                for scenario, target in self._turns(number):
                    try:
                        yield _shown(self._run(scenario, target, number, provider, (load_core, target_core)))
                    except (NotStarted, LoadFailed) as error:
                        if target in OWN:
                            raise
                        self.given_up[target.name] = f"round {number + 1}, {scenario.name}: {str(error).splitlines()[-1]}"
                        print(f"{target.name} is given up: {error}", file=sys.stderr)

    def _turns(self, number: int) -> Iterator[tuple[Scenario, Target]]:
        order = self.targets if number % 2 == 0 else self.targets[::-1]
        for scenario in (*SCENARIOS, Scenario("delivery", "")):
            if scenario.name in self.scenarios:
                for target in order:
                    if target.name not in self.given_up and _takes_part(target, scenario.name):
                        yield scenario, target

    def _run(self, scenario: Scenario, target: Target, number: int, provider: Running, cores: tuple[int, int]) -> Result:
        load_core, target_core = cores
        if scenario.name == "delivery":
            with running(target, target_core, provider.port) as server:
                return deliver(number, server, load_core, self.calls)
        best: Result | None = None
        for _ in range(TRIES if self.patient else 1):
            processes.wait_for_quiet(OTHERS_MAX, PATIENCE_S if self.patient else 0.0)
            with running(target, target_core, provider.port) as server:
                result = measure(scenario, number, server, provider, load_core, self.seconds)
            best = result if best is None or result.others < best.others else best
            if best.others <= OTHERS_MAX:
                break
        assert best is not None
        return best


def _takes_part(target: Target, scenario: str) -> bool:
    return scenario in target.scenarios if target.scenarios else scenario != "delivery"


def _shown(result: Result) -> Result:
    load, cpu_s = result.load, sum(result.cpu_s.values())
    line = f"round {result.round + 1}  {result.scenario:12} {result.target:24} {load['rps']:9,.0f} calls/s"
    line += f"  p50 {load['lat']['p50'] / 1e3:9.3f} ms  CPU {cpu_s:6.2f} s  others {result.others:.2f}"
    print(f"{line}  errors {result.errors}  late {result.late}", file=sys.stderr, flush=True)
    return result
