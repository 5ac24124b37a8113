"""`clearpane calls`: the recorded calls as a table, as JSON lines, or as they come."""

import argparse
import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from clearpane.cli import flags
from clearpane.cli.flags import add_filters
from clearpane.settings import Settings
from clearpane.store import Store, StoreError
from reader import filter as filters
from reader import table
from reader.filter import Filter
from reader.lake import LakeError, open_lake
from reader.lines import json_line

ROWS_SHOWN = 50

_EPILOG = """times are 2026-11-21, 2026-11-21T10:00Z, or 10m, 2h, 3d ago, and mean when the proxy received the call.
With --until, records that came to the lake more than seven days after it are not looked at."""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("calls", help="list recorded calls, newest last", epilog=_EPILOG)
    parser.add_argument("--lake", metavar="DIR|s3://BUCKET/PREFIX", help="folder or s3://bucket/prefix that holds the records")
    parser.add_argument("--json", action="store_true", help="one JSON object per record and line, all of them, oldest first")
    parser.add_argument("--follow", action="store_true", help="go on with what is added, until Ctrl-C")
    parser.add_argument("--limit", type=flags.integer(1, 10_000_000), metavar="N", help="only the newest N (default 50, with --json all)")
    parser.add_argument("--since", metavar="TIME", help="received then or later")
    parser.add_argument("--until", metavar="TIME", help="received before then")
    add_filters(parser)
    parser.add_argument("--status", help="200, 4xx, 5xx, or error")
    parser.add_argument("--end", help="complete, client_disconnected, upstream_error, timeout, shutdown, rejected, interrupted")
    parser.add_argument("--min-cost", metavar="USD", help="this or more; calls of unknown cost are left out")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """0; 2 when the filter is wrong or the lake cannot be read."""
    try:
        wanted = wanted_by(arguments, datetime.now().astimezone())
        store = open_lake(settings)
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_print(store, wanted, arguments))
    except (filters.BadFilter, LakeError, StoreError) as error:
        print(f"clearpane calls: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # as in `clearpane calls --json | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be flushed goes nowhere
    return 0


def wanted_by(arguments: argparse.Namespace, now: datetime) -> Filter:
    """Raises BadFilter."""
    return Filter(
        since=_each(arguments.since, lambda text: filters.moment(text, now)),
        until=_each(arguments.until, lambda text: filters.moment(text, now)),
        user=arguments.user,
        session=arguments.session,
        model=arguments.model,
        provider=arguments.provider,
        status=_each(arguments.status, filters.status),
        end=arguments.end,
        request_id=arguments.request_id,
        cost_min=_each(arguments.min_cost, filters.cost),
        properties=filters.properties(arguments.property),
    )


def _each(text: str | None, parse: Callable[[str], Any]) -> Any:
    return None if text is None else parse(text)


async def _print(store: Store, wanted: Filter, arguments: argparse.Namespace) -> None:
    if arguments.follow:
        await (_follow_json if arguments.json else _follow_table)(store, wanted, arguments.limit)
    elif arguments.json:
        await _print_json(store, wanted, arguments.limit)
    else:
        await _print_table(store, wanted, arguments.limit or ROWS_SHOWN)


async def _print_json(store: Store, wanted: Filter, limit: int | None) -> None:
    from reader import rows

    out = sys.stdout.buffer
    if limit is not None:
        out.writelines(json_line(row) for row in await rows.newest(store, wanted, limit))
    else:
        async for row in rows.rows(store, wanted):
            out.write(json_line(row))
    out.flush()


async def _print_table(store: Store, wanted: Filter, limit: int) -> None:
    from reader import rows

    found = await rows.newest(store, wanted, limit)
    if not found:
        print("no calls recorded that match", file=sys.stderr)
        return
    shape = table.layout(found, width=_width(), zone=None, colored=sys.stdout.isatty())
    print(shape.header(), *map(shape.line, found), "", table.totals(found), sep="\n", flush=True)


async def _follow_json(store: Store, wanted: Filter, limit: int | None) -> None:
    from reader import rows

    async for batch in rows.follow(store, wanted, now=datetime.now(UTC)):
        sys.stdout.buffer.writelines(json_line(row) for row in batch)
        sys.stdout.buffer.flush()


async def _follow_table(store: Store, wanted: Filter, limit: int | None) -> None:
    from reader import rows

    shape = None
    async for batch in rows.follow(store, wanted, now=datetime.now(UTC)):
        shown = batch if shape else batch[-(limit or ROWS_SHOWN) :]
        if shape is None:
            shape = table.layout(shown, width=_width(), zone=None, colored=sys.stdout.isatty(), growing=True)
            print(shape.header())
        for row in shown:
            print(shape.line(row))
        sys.stdout.flush()


def _width() -> int:
    """Of the terminal; a pipe or a file gets what a wide one would."""
    return shutil.get_terminal_size((160, 24)).columns
