"""`clearpane query`: SQL over the recorded calls."""

import argparse
import csv
import os
import shutil
import sys
from typing import TYPE_CHECKING

import orjson

from clearpane.settings import Settings
from clearpane.store import StoreError
from reader.lake import LakeError, open_lake
from reader.lines import plain
from reader.table import grid

if TYPE_CHECKING:
    from reader.query import Answer

_EPILOG = """example: clearpane query "select model, count(*) n, sum(cost_total) usd from calls group by model order by usd desc"
The view `calls` has the columns that `clearpane calls --json` prints, and `dt` (2026-11-21) and `hour` (02) of the file
that a row stands in: a condition on these two keeps other files from being opened."""
ROWS_SHOWN = 10_000


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("query", help="SQL over the recorded calls", epilog=_EPILOG)
    parser.add_argument("sql", metavar="SQL", help="a query in DuckDB's SQL over the view `calls`")
    parser.add_argument("--lake", metavar="DIR|s3://BUCKET/PREFIX", help="folder or s3://bucket/prefix that holds the records")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object per row and line")
    form.add_argument("--csv", action="store_true", help="comma-separated, with a header")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """0; 1 when the query is wrong; 2 when the lake cannot be read."""
    from reader.query import BadQuery, query

    try:
        with query(open_lake(settings), arguments.sql) as answer:
            (_print_json if arguments.json else _print_csv if arguments.csv else _print_table)(answer)
    except BadQuery as error:
        print(f"clearpane query: {error}", file=sys.stderr)
        return 1
    except (LakeError, StoreError) as error:
        print(f"clearpane query: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _print_json(answer: "Answer") -> None:
    for row in answer.rows:
        sys.stdout.buffer.write(orjson.dumps(dict(zip(answer.columns, row, strict=True)), default=plain, option=_JSON))
    sys.stdout.buffer.flush()


_JSON = orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_NON_STR_KEYS


def _print_csv(answer: "Answer") -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(answer.columns)
    writer.writerows([plain(value) for value in row] for row in answer.rows)
    sys.stdout.flush()


def _print_table(answer: "Answer") -> None:
    rows = [row for row, _ in zip(answer.rows, range(ROWS_SHOWN), strict=False)]
    for line in grid(answer.columns, rows, width=shutil.get_terminal_size((160, 24)).columns):
        print(line)
    if not answer.columns:
        return
    more = next(answer.rows, None) is not None
    print(f"\n{'the first ' if more else ''}{len(rows)} row{'' if len(rows) == 1 else 's'}{': --json and --csv print all' if more else ''}")
    sys.stdout.flush()
