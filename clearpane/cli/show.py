"""`clearpane show ID`: one recorded call in full."""

import argparse
import asyncio
import shutil
import sys

import orjson

from clearpane.contract.members import NotAnObject
from clearpane.contract.records import Row
from clearpane.settings import Settings
from clearpane.store import NotFound, Store, StoreError
from reader.lake import LakeError, open_lake
from reader.show import NoBody, body, page


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("show", help="one recorded call in full", epilog="exit code: 1 if there is no such call")
    parser.add_argument("id", metavar="ID", help="id of the call, or its beginning as `clearpane calls` prints it")
    parser.add_argument("--lake", metavar="DIR|s3://BUCKET/PREFIX", help="folder or s3://bucket/prefix that holds the records")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the record's line as it is stored")
    form.add_argument("--body", choices=("request", "response"), help="only this side's body, as it is stored")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """0; 1 when there is no such call or body; 2 when the lake cannot be read."""
    from reader.record import BadId

    try:
        row, line = asyncio.run(_found(open_lake(settings), arguments.id))
        _print(row, line, arguments)
    except (BadId, NoBody, _NotOne) as error:
        print(f"clearpane show: {error}", file=sys.stderr)
        return 1
    except (LakeError, StoreError, NotAnObject) as error:
        print(f"clearpane show: {error}", file=sys.stderr)
        return 2
    return 0


class _NotOne(Exception):
    """No call, or several."""


async def _found(store: Store, text: str) -> tuple[Row, bytes]:
    from reader import record

    found = await record.find(store, prefix := record.id_prefix(text))
    if not found:
        raise _NotOne(f"no call with the id {prefix}")
    if len(found) > 1:
        number = f"{len(found)}{' or more' if len(found) == record.MATCHES_MAX else ''}"
        raise _NotOne("\n  ".join([f"{number} calls begin with {prefix}:", *sorted(map(_candidate, found))]))
    try:
        return found[0], await record.open_record(store, found[0])
    except NotFound:
        raise _NotOne(f"the index points to {found[0]['object']}, which is gone: `clearpane verify` says more") from None


def _candidate(row: Row) -> str:
    return f"{row['request_id']}  {row['received_at']:%Y-%m-%d %H:%M:%S}Z  {row['model'] or row['operation'] or ''}"


def _print(row: Row, line: bytes, arguments: argparse.Namespace) -> None:
    if arguments.json:
        sys.stdout.buffer.write(line)
    elif arguments.body:
        sys.stdout.buffer.write(body(orjson.loads(line), arguments.body))
    else:
        width = shutil.get_terminal_size((100, 24)).columns
        print(page(orjson.loads(line), width=width, zone=None, colored=sys.stdout.isatty(), row=row), end="")
    sys.stdout.flush()
