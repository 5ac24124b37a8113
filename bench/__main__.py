"""Compare Clearpane with nginx, with other gateways and with no proxy at all, in front of the same fake provider.

Provider and load generator share one core, the target has another for itself. In each round every target
meets each scenario in turn, the order reversed in every second round, so that a slow minute of the machine
hits all of them. Prints Markdown; progress goes to standard error. Linux, two cores, a C compiler.
"""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from bench import circumstances, machine, report
from bench.comparison import Comparison
from bench.peers.install import Unavailable
from bench.results import Results
from bench.scenarios import SCENARIOS, SHORT_SCENARIOS, LoadFailed
from bench.serving import BUILD, DOCUMENT, ROOT, NotStarted
from bench.targets import OWN, PEERS, SHORT, TARGETS, Target

SAVED = BUILD / "results.jsonl"


def main() -> int:
    arguments = _arguments()
    if arguments.saved:
        return _show(Results.saved(arguments.saved), write=arguments.write_docs)
    if problem := machine.missing():
        print(problem, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    machine.build()
    targets, missing = _available(_chosen(arguments))
    comparison = Comparison(targets, arguments.scenarios, arguments.rounds, arguments.seconds, arguments.calls, patient=not arguments.quick)
    names = [target.name for target in targets]
    results = Results([], circumstances.observe(names, missing, arguments.rounds, arguments.seconds))
    try:
        for result in comparison.rounds():
            results.add(result)
    except (NotStarted, LoadFailed) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        results.circumstances["missing"] |= comparison.given_up
        results.save(SAVED)  # an hour's work, even when it was cut short
    return _show(results, write=arguments.write_docs)


def _show(results: Results, *, write: bool) -> int:
    """1 when a call through one of our own targets went wrong."""
    shown = report.text(results)
    print(shown)
    if write:
        report.write(DOCUMENT, "comparison", shown)
    own = [run for run in results.all if run.target in {target.name for target in OWN}]
    return 1 if any(run.errors or run.late or run.load["mismatched"] for run in own) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", action="store_true", help="every target and every scenario: about half an hour")
    parser.add_argument("--quick", action="store_true", help="one short round: tells that it works, not how fast it is")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="measured time of each run")
    parser.add_argument("--calls", type=int, default=5000, help="calls whose records are followed into the lake")
    parser.add_argument("--only", type=_names(set(TARGETS)), help="targets, comma-separated: " + ", ".join(TARGETS))
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--scenarios", type=_names({*names, "delivery"}), help=", ".join(names) + ", delivery")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("--saved", type=Path, help=f"no run: show the results in this file (the last: {SAVED.relative_to(ROOT)})")
    arguments = parser.parse_args()
    if arguments.scenarios is None:
        arguments.scenarios = [*(names if arguments.peers or arguments.only else SHORT_SCENARIOS), "delivery"]
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.calls = 1, 1.5, 1000
    return arguments


def _names(known: set[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        if unknown := set(text.split(",")) - known:
            raise argparse.ArgumentTypeError(f"no such name: {', '.join(sorted(unknown))}")
        return text.split(",")

    return parse


def _chosen(arguments: argparse.Namespace) -> list[Target]:
    if arguments.only:
        return [TARGETS[name] for name in arguments.only]
    return [*OWN, *PEERS] if arguments.peers else list(SHORT)


def _available(targets: list[Target]) -> tuple[list[Target], dict[str, str]]:
    """Installs what is missing; says what cannot be had, and why."""
    found, missing = [], {}
    for target in targets:
        try:
            target.home()
        except Unavailable as reason:
            missing[target.name] = str(reason)
            print(f"{target.name} is left out: {reason}", file=sys.stderr)
        else:
            found.append(target)
    return found, missing


if __name__ == "__main__":
    sys.exit(main())
