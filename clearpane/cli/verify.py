"""`clearpane verify`: proof that the lake is whole."""

import argparse
import asyncio
import sys

import orjson

from clearpane.settings import Settings
from clearpane.store import StoreError
from reader.lake import LakeError, location, open_lake

SHOWN_MAX = 20


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "verify",
        help="prove that the lake is whole: digests, gaps, overlaps, duplicates, index",
        epilog="exit code: 0 clean, 1 findings, 2 the lake could not be read",
    )
    parser.add_argument("--lake", metavar="DIR|s3://BUCKET/PREFIX", help="folder or s3://bucket/prefix that holds the records")
    parser.add_argument("--json", action="store_true", help="one JSON object with all findings")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """0 clean, 1 findings, 2 could not look."""
    from reader.verify import verify

    try:
        report = asyncio.run(verify(open_lake(settings)))
    except (LakeError, StoreError) as error:
        if arguments.json:
            _print_json({"clean": None, "error": str(error)})
        print(f"clearpane verify: could not look: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        _print_json(report.to_dict())
    else:
        print(*report.lines(location(settings), SHOWN_MAX), sep="\n")
    return 0 if report.clean else 1


def _print_json(found: dict[str, object]) -> None:
    print(orjson.dumps(found).decode())
