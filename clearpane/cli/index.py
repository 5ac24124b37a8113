"""`clearpane index`: the index made again from calls/, and its many small files put together."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import datetime

import orjson

from clearpane import forms
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
Exit code: 0; 1 another command has the lake; 2 it cannot be read or written."""
_HINT = "clearpane verify names damaged objects"


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("index", help="make the index again, or put its files together", epilog=_EPILOG)
    kinds = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    again = kinds.add_parser("rebuild", help="every index file from calls/ alone; what is right already is left", epilog=_EPILOG)
    together = kinds.add_parser("compact", help="one index file for an hour of a log, once the hour is three hours past", epilog=_EPILOG)
    for each in (again, together):
        add_settings(each, "lake")
        each.add_argument("--from", dest="since", metavar="TIME", help="default the lake's beginning")
        each.add_argument("--to", dest="until", metavar="TIME", help="default the lake's end")
        each.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")
        each.add_argument("--json", action="store_true", help="one JSON object per hour and log")
    again.add_argument("--recorded-costs", action="store_true", help="drop what `clearpane reprice` wrote; default: it is kept")
    together.add_argument(
        "--grace", type=forms.number(0, 86_400), default=60.0, metavar="S", help="small files stay so long for queries that run; default 60"
    )
    again.set_defaults(run=run, command=_rebuild)
    together.set_defaults(run=run, command=_compact)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """0; 1 when another command has the lake; 2 when it cannot be read or written."""
    try:
        asyncio.run(arguments.command(open_lake(settings), arguments, datetime.now().astimezone()))
    except Taken as error:
        print(f"clearpane index: {error}", file=sys.stderr)
        return 1
    except NotAnObject as error:
        print(f"clearpane index: an object of calls/ is damaged: {error}: {_HINT}", file=sys.stderr)
        return 2
    except (BadFilter, LakeError, StoreError, ValueError) as error:
        print(f"clearpane index: {error}", file=sys.stderr)
        return 2
    return 0


async def _rebuild(store: Store, arguments: argparse.Namespace, now: datetime) -> None:
    async with turn(store, "index rebuild", apply=not arguments.dry_run) as mine:
        steps = rebuild(mine, _row, _within(arguments, now), keep_costs=not arguments.recorded_costs, apply=not arguments.dry_run)
        await _told(steps, arguments, "checked")


async def _compact(store: Store, arguments: argparse.Namespace, now: datetime) -> None:
    within = _within(arguments, now)
    async with turn(store, "index compact", apply=not arguments.dry_run) as mine:
        written = await _told(compact(mine, _row, within, now=now, apply=not arguments.dry_run), arguments, "looked at")
        if arguments.dry_run:
            return
        if written:
            await asyncio.sleep(arguments.grace)
        await _told(sweep(mine, within, now=now), arguments, "swept")


async def _told(steps: AsyncIterator[Step], arguments: argparse.Namespace, deed: str) -> int:
    """Prints what was done; the number of files that were written."""
    objects = files = written = deleted = 0
    async for step in steps:
        objects, files = objects + step.objects, files + step.files
        written, deleted = written + step.written, deleted + step.deleted
        if arguments.json:
            shown = {"hour": f"{step.hour:%Y-%m-%dT%H}", "log": step.log, "objects": step.objects, "files": step.files}
            print(orjson.dumps({**shown, "written": step.written, "deleted": step.deleted}).decode())
    would = "would be " if arguments.dry_run else ""
    told = f"{deed}: {files:,} index files of {objects:,} objects; {written:,} {would}written, {deleted:,} {would}deleted"
    print(told, file=sys.stderr if arguments.json else sys.stdout, flush=True)
    return written


def _within(arguments: argparse.Namespace, now: datetime) -> Hours:
    first, last = (None if text is None else whole_hour(moment(text, now)) for text in (arguments.since, arguments.until))
    return Hours(first=first, last=last)


def _row(record: Record) -> Row:
    return row_of(record, Derivation(derive=lambda _: {}, row=derived_row))
