"""`clearpane prices check`: our price book against LiteLLM's public price map."""

import argparse
import http.client
import shutil
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import orjson

from clearpane.cli import flags
from clearpane.settings import Settings
from consumer.derive.comparison import PROVIDERS, Difference, NoPriceMap, Report, compare
from consumer.derive.cost import plain
from consumer.derive.prices import PriceBook
from reader.table import grid

BYTES_MAX = 64 << 20
TIMEOUT_S = 60.0

_EPILOG = """exit code: 0 no difference beyond the tolerance, 1 differences, 2 could not look. For a nightly job:
clearpane prices check https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.json"""


class _Unreadable(Exception):
    """The map cannot be had: why."""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("prices", help="check the price book")
    kinds = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    check = kinds.add_parser("check", help="our prices against LiteLLM's public price map, the differences named", epilog=_EPILOG)
    check.add_argument("map", metavar="FILE|URL", help="LiteLLM's model_prices_and_context_window.json")
    check.add_argument("--tolerance", type=flags.number(0, 100), default=1.0, metavar="PERCENT", help="difference that passes; default 1")
    check.add_argument("--provider", action="append", default=[], choices=sorted(set(PROVIDERS.values())), help="repeatable; default all")
    check.add_argument("--json", action="store_true", help="one JSON object with all differences")
    check.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """0, 1 differences, 2 could not look."""
    book = PriceBook()
    share = Decimal(str(arguments.tolerance)) / 100
    try:
        report = compare(_read(arguments.map), book, at=datetime.now(UTC), tolerance=share, providers=arguments.provider)
    except (_Unreadable, NoPriceMap) as error:
        print(f"clearpane prices: could not look: {arguments.map}: {error}", file=sys.stderr)
        return 2
    (_print_json if arguments.json else _print_table)(report, book)
    return 1 if report.differences else 0


def _read(where: str) -> bytes:
    try:
        if where.startswith(("https://", "http://")):
            with urllib.request.urlopen(where, timeout=TIMEOUT_S) as answer:  # noqa: S310  # checked above
                data: bytes = answer.read(BYTES_MAX + 1)
        else:
            with Path(where).open("rb") as file:
                data = file.read(BYTES_MAX + 1)
    except (OSError, urllib.error.URLError, http.client.HTTPException, ValueError) as error:
        raise _Unreadable(str(error)) from error
    if len(data) > BYTES_MAX:
        raise _Unreadable(f"larger than {BYTES_MAX} bytes")
    return data


def _print_table(report: Report, book: PriceBook) -> None:
    rows = [[d.provider, d.model, d.leaf, d.variant, plain(d.ours), plain(d.theirs), _percent(d)] for d in report.differences]
    if rows:
        names = ("PROVIDER", "MODEL", "PRICE OF", "VARIANT", "OURS", "THEIRS", "OURS IS")
        print(*grid(names, rows, width=shutil.get_terminal_size((160, 24)).columns), "", sep="\n")
    print(f"{book.version}: {len(report.differences)} of {report.prices} prices of {report.models} models differ (USD per million tokens)")
    print(f"not in our book: {len(report.missing)} models, and {report.unpriced} prices of those it has; their cost is unknown, not wrong")


def _percent(difference: Difference) -> str:
    return "?" if difference.share is None else f"{difference.share * 100:+.1f} %"


def _print_json(report: Report, book: PriceBook) -> None:
    differences = [
        {"provider": d.provider, "model": d.model, "leaf": d.leaf, "variant": d.variant, "ours": plain(d.ours), "theirs": plain(d.theirs)}
        for d in report.differences
    ]
    found = {"price_version": book.version, "models": report.models, "prices": report.prices, "differences": differences}
    print(orjson.dumps({**found, "missing": report.missing, "unpriced": report.unpriced}).decode())
