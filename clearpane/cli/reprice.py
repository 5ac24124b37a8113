"""`clearpane reprice`: the cost of recorded calls by today's price book and overlay, beside the cost they were recorded with."""

import argparse
import asyncio
import shutil
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from clearpane.cli.calls import wanted_by
from clearpane.cli.flags import add_filters
from clearpane.cli.revision import Revised, Unsettled, revise
from clearpane.cli.turn import Taken, turn
from clearpane.contract.members import NotAnObject
from clearpane.settings import Settings
from clearpane.store import StoreError
from consumer.derive import BadOverlay, repricing
from consumer.derive.prices import open_book
from reader.filter import BadFilter
from reader.lake import LakeError, open_lake
from reader.lines import plain
from reader.table import grid, money

_EPILOG = """Without --apply nothing is written. With it the cost columns of the index are: cost_total is then the new cost,
cost_recorded the one that the call was recorded with. calls/ is never changed. Times are as for `clearpane calls`.
Exit code: 0; 1 another command has the lake; 2 it cannot be read or written."""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("reprice", help="recorded calls at today's prices, old and new cost", epilog=_EPILOG)
    parser.add_argument("--lake", metavar="DIR|s3://BUCKET/PREFIX", help="folder or s3://bucket/prefix that holds the records")
    parser.add_argument("--price-overlay", metavar="FILE", help="TOML file with prices of your own; default as the consumer's setting")
    parser.add_argument("--from", dest="since", metavar="TIME", required=True, help="received then or later")
    parser.add_argument("--to", dest="until", metavar="TIME", help="received before then; default now")
    add_filters(parser)
    parser.add_argument("--apply", action="store_true", help="write the new costs to the index")
    parser.add_argument("--json", action="store_true", help="one JSON object per call whose cost changes")
    parser.set_defaults(run=run, status=None, end=None, min_cost=None)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """0; 1 when another command has the lake; 2 when the filter or the overlay is wrong, or the lake cannot be read or written."""
    try:
        return asyncio.run(_reprice(arguments, settings))
    except BadOverlay as error:
        print("clearpane reprice: the price overlay needs a change:", *error.problems, sep="\n  ", file=sys.stderr)
    except Taken as error:
        print(f"clearpane reprice: {error}", file=sys.stderr)
        return 1
    except (BadFilter, LakeError, StoreError, NotAnObject) as error:
        print(f"clearpane reprice: {error}", file=sys.stderr)
    return 2


async def _reprice(arguments: argparse.Namespace, settings: Settings) -> int:
    wanted = wanted_by(arguments, datetime.now().astimezone())
    store, book = open_lake(settings), open_book(settings.price_overlay)
    summary = Summary()
    async with turn(store, "reprice", apply=arguments.apply) as mine:
        found = revise(mine, wanted, lambda record: repricing.reprice(record, book), now=datetime.now(UTC), apply=arguments.apply)
        async for each in _counted(found, summary):
            if arguments.json:
                sys.stdout.buffer.writelines(map(_line, each))
    sys.stdout.buffer.flush()
    out = sys.stderr if arguments.json else sys.stdout
    print(*summary.lines(book.version, applied=arguments.apply), sep="\n", file=out, flush=True)
    return 0


async def _counted(found: AsyncIterator[list[Revised] | Unsettled], summary: "Summary") -> AsyncIterator[list[Revised]]:
    """The changed ones of each file."""
    async for each in found:
        if isinstance(each, Unsettled):
            summary.passed_over += each.rows
        else:
            summary.add(each)
            yield [one for one in each if one.changed]


def _line(revised: Revised) -> bytes:
    before, after = revised.before, revised.after
    shown = {"request_id": after["request_id"], "model": after["model"], "received_at": after["received_at"]}
    shown |= {f"{name}_before": before[name] for name in ("cost_total", "cost_source", "price_version")}
    shown |= {name: after[name] for name in (*repricing.COLUMNS, "cost_recorded", "price_version_recorded")}
    return orjson.dumps(shown, default=plain, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATETIME)


@dataclass(slots=True)
class Group:
    calls: int = 0
    changed: int = 0
    before: Decimal = Decimal(0)
    after: Decimal = Decimal(0)
    unknown_before: int = 0
    unknown_after: int = 0

    def add(self, revised: Revised) -> None:
        before, after = revised.before["cost_total"], revised.after["cost_total"]
        self.calls += 1
        self.changed += revised.changed
        self.before += before or 0
        self.after += after or 0
        self.unknown_before += before is None
        self.unknown_after += after is None

    def cells(self) -> list[Any]:
        old, new = self._sum(self.before, self.unknown_before), self._sum(self.after, self.unknown_after)
        return [self.calls, self.changed, old, new, self.unknown_before, self.unknown_after]

    def _sum(self, known: Decimal, unknown: int) -> str:
        return money(known if unknown < self.calls else None)


class Summary:
    """What changes, by provider and model; nothing of it grows with the calls."""

    _NAMES = ("PROVIDER", "MODEL", "CALLS", "CHANGED", "OLD COST", "NEW COST", "OLD UNKNOWN", "NEW UNKNOWN")

    def __init__(self) -> None:
        self._groups: defaultdict[tuple[str, str], Group] = defaultdict(Group)
        self._all = Group()
        self.passed_over = 0

    def add(self, revised: Iterable[Revised]) -> None:
        for one in revised:
            self._groups[one.after["provider"] or "?", one.after["model"] or "?"].add(one)
            self._all.add(one)

    def lines(self, version: str, *, applied: bool) -> list[str]:
        if not self._all.calls:
            return ["no calls recorded that match", *self._late()]
        rows = [[*names, *group.cells()] for names, group in sorted(self._groups.items())]
        rows.append(["all", "", *self._all.cells()])
        done = "nothing to write" if not self._all.changed else "written" if applied else "nothing was written: --apply does"
        table = grid(self._NAMES, rows, width=shutil.get_terminal_size((160, 24)).columns)
        return [*table, "", f"{self._all.changed} of {self._all.calls} calls change, by {version}; {done}", *self._late()]

    def _late(self) -> list[str]:
        passed = f"{self.passed_over} calls were passed over: their object is being written, or is gone; try again in a minute"
        return [passed] if self.passed_over else []
