"""`clearpane index`: the index made again from calls/, and its many small files put together."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import orjson

from clearpane.cli import flags
from clearpane.cli.flags import add_settings
from clearpane.cli.turn import Taken, turn
from clearpane.cli.upkeep import Step, compact, rebuild, sweep
from clearpane.contract.members import NotAnObject
from clearpane.contract.records import Record, Row
from clearpane.settings import Settings
from clearpane.store import Store, StoreError
from consumer.derive import row as derived_row
from consumer.lake.draft import Derivation, row_of
from reader.filter import BadFilter, moment
from reader.lake import Hours, LakeError, open_lake, whole_hour

_EPILOG = """--from and --to are hours of the lake, those of the first record of each object: 2026-11-21, 2026-11-21T10:00Z,
or 3d for three days ago.
Exit code: 0; 1 another command has the lake, or objects are damaged; 2 the lake cannot be read or written."""
_HINT = "clearpane verify says more of damaged objects"
# A query lists the files once, and reads them for as long as it runs.
GRACE_S_MIN = 60.0
_DAMAGED_SHOWN = 20


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("index", help="make the index again, or put its files together", epilog=_EPILOG)
    kinds = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    again = kinds.add_parser("rebuild", help="every index file from calls/ alone; what is right already is left", epilog=_EPILOG)
    together = kinds.add_parser("compact", help="one index file for an hour of a log, once the hour is three hours past", epilog=_EPILOG)
    for each in (again, together):
        add_settings(each, "lake")
        each.add_argument("--from", dest="since", metavar="TIME", help="default the lake's beginning")
        each.add_argument("--to", dest="until", metavar="TIME", help="before then; default the lake's end")
        each.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")
        each.add_argument("--json", action="store_true", help="one JSON object per hour and log")
    again.add_argument("--recorded-costs", action="store_true", help="drop what `clearpane reprice` wrote; default: it is kept")
    together.add_argument(
        "--grace",
        type=flags.number(GRACE_S_MIN, 86_400),
        default=GRACE_S_MIN,
        metavar="S",
        help="small files stay so long for queries that run; default and least 60",
    )
    again.set_defaults(run=run, command=_rebuild)
    together.set_defaults(run=run, command=_compact)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """0; 1 when another command has the lake, or objects are damaged; 2 when the lake cannot be read or written."""
    try:
        code: int = asyncio.run(arguments.command(open_lake(settings), arguments, datetime.now().astimezone()))
    except Taken as error:
        print(f"clearpane index: {error}", file=sys.stderr)
        return 1
    except NotAnObject as error:
        print(f"clearpane index: an object of calls/ is damaged: {error}: {_HINT}", file=sys.stderr)
        return 2
    except (BadFilter, LakeError, StoreError, ValueError) as error:
        print(f"clearpane index: {error}", file=sys.stderr)
        return 2
    return code


async def _rebuild(store: Store, arguments: argparse.Namespace, now: datetime) -> int:
    async with turn(store, "index rebuild", apply=not arguments.dry_run) as mine:
        steps = rebuild(mine, _row, _within(arguments, now), keep_costs=not arguments.recorded_costs, apply=not arguments.dry_run)
        damaged = (await _told(steps, arguments, "checked")).damaged
    if not damaged:
        return 0
    print(f"clearpane index: {len(damaged):,} objects of calls/ are damaged, and their index files as they were: {_HINT}", file=sys.stderr)
    print(*(f"  {one}" for one in damaged[:_DAMAGED_SHOWN]), sep="\n", file=sys.stderr)
    return 1


async def _compact(store: Store, arguments: argparse.Namespace, now: datetime) -> int:
    within = _within(arguments, now)
    async with turn(store, "index compact", apply=not arguments.dry_run) as mine:
        told = await _told(compact(mine, _row, within, now=now, apply=not arguments.dry_run), arguments, "looked at")
        if arguments.dry_run:
            return 0
        if told.written or told.superfluous:
            await asyncio.sleep(arguments.grace)
        try:
            await _told(sweep(mine, within, now=now), arguments, "swept")
        except StoreError as error:
            raise type(error)(f"put together, but not swept: the same command does it ({error})") from error
    return 0


@dataclass(slots=True)
class _Told:
    objects: int = 0
    files: int = 0
    written: int = 0
    deleted: int = 0
    superfluous: int = 0
    damaged: list[str] = field(default_factory=list)

    def add(self, step: Step) -> None:
        self.objects += step.objects
        self.files += step.files
        self.written += step.written
        self.deleted += step.deleted
        self.superfluous += step.superfluous
        self.damaged += step.damaged


async def _told(steps: AsyncIterator[Step], arguments: argparse.Namespace, deed: str) -> _Told:
    """Prints what was done."""
    told = _Told()
    async for step in steps:
        told.add(step)
        if arguments.json:
            shown = {"hour": f"{step.hour:%Y-%m-%dT%H}", "log": step.log, "objects": step.objects, "files": step.files}
            print(orjson.dumps({**shown, "written": step.written, "deleted": step.deleted}).decode())
    would = "would be " if arguments.dry_run else ""
    line = (
        f"{deed}: {told.files:,} index files of {told.objects:,} objects; {told.written:,} {would}written, {told.deleted:,} {would}deleted"
    )
    print(line, file=sys.stderr if arguments.json else sys.stdout, flush=True)
    return told


def _within(arguments: argparse.Namespace, now: datetime) -> Hours:
    """Whole hours: that of --from, and the last that begins before --to."""
    first = None if arguments.since is None else whole_hour(moment(arguments.since, now))
    last = None if arguments.until is None else whole_hour(moment(arguments.until, now) - timedelta(microseconds=1))
    return Hours(first=first, last=last)


def _row(record: Record) -> Row:
    return row_of(record, Derivation(derive=lambda _: {}, row=derived_row))
