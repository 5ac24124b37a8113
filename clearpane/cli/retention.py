"""`clearpane retention`: whole old objects of the lake deleted, the chain left sound."""

import argparse
import asyncio
import math
import sys
from datetime import UTC, datetime, timedelta

import orjson

from clearpane.cli import flags
from clearpane.cli.flags import add_settings
from clearpane.cli.pruning import Plan, carry_out, plan
from clearpane.cli.turn import Taken, turn
from clearpane.settings import Settings
from clearpane.store import Store, StoreError
from reader.lake import LakeError, open_lake, whole_hour

_EPILOG = """Without --apply nothing is deleted. An object whose messages Kafka may still have must stay: a consumer whose head is old
would write it again. So --days must be at least a day above the topic's retention. exit code: 0; 1 refused; 2 could not look."""
# Between the clocks of broker, proxy and this machine, and a retention that deletes whole segments only.
_MARGIN_DAYS = 1


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("retention", help="delete old objects of the lake, the chain left sound", epilog=_EPILOG)
    add_settings(parser, "lake")
    parser.add_argument("--days", type=flags.integer(1, 100_000), required=True, metavar="N", help="calls stay for so long, at least")
    parser.add_argument(
        "--kafka-retention-days",
        type=flags.number(0, 100_000),
        default=7.0,
        metavar="N",
        help="of the topic (retention.ms); default 7, Kafka's own",
    )
    parser.add_argument("--apply", action="store_true", help="delete; without it only what would go is said")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """0; 1 refused; 2 could not look."""
    if arguments.days < arguments.kafka_retention_days + _MARGIN_DAYS:
        least = math.ceil(arguments.kafka_retention_days + _MARGIN_DAYS)
        print(
            f"clearpane retention: refused: Kafka keeps messages for {arguments.kafka_retention_days:g} days, and what is deleted while "
            f"Kafka has its messages can be written again: give --days {least} or more, or, if the topic keeps less, "
            "--kafka-retention-days",
            file=sys.stderr,
        )
        return 1
    try:
        asyncio.run(_retain(open_lake(settings), arguments))
    except Taken as error:
        print(f"clearpane retention: {error}", file=sys.stderr)
        return 1
    except (LakeError, StoreError) as error:
        print(f"clearpane retention: {error}", file=sys.stderr)
        return 2
    return 0


async def _retain(store: Store, arguments: argparse.Namespace) -> None:
    deleted = 0
    async with turn(store, "retention", apply=arguments.apply) as mine:
        made = await plan(mine, whole_hour(datetime.now(UTC) - timedelta(days=arguments.days)))
        if arguments.apply:
            async for _ in carry_out(mine, made):
                deleted += 1
    if arguments.json:
        logs = [
            {"log": log, "objects": made.cuts[log].objects, "bytes": made.cuts[log].bytes, "end": mark.end}
            for log, mark in made.marks.items()
        ]
        left = [{"log": log, "objects": cut.objects, "bytes": cut.bytes, "end": made.standing[log].end} for log, cut in made.left.items()]
        shown = {"before": made.before.isoformat(), "applied": arguments.apply, "deleted": deleted, "logs": logs, "left": left}
        print(orjson.dumps(shown).decode())
        return
    for line in _lines(made):
        print(line)
    objects = sum(cut.objects for cut in [*(made.cuts[log] for log in made.marks), *made.left.values()])
    done = f"deleted, {deleted:,} keys with their indexes" if arguments.apply else "nothing was deleted: --apply does"
    print(f"{objects:,} objects of {len({*made.marks, *made.left}):,} logs; {done}")


def _lines(made: Plan) -> list[str]:
    found = [f"calls recorded before {made.before:%Y-%m-%dT%H:%MZ}:"]
    found += [
        f"  {log}: {made.cuts[log].objects:,} objects, {made.cuts[log].bytes:,} bytes, up to offset {mark.end}"
        for log, mark in made.marks.items()
    ]
    found += [
        f"  {log}: {cut.objects:,} objects, {cut.bytes:,} bytes, that a run before left below offset {made.standing[log].end}"
        for log, cut in made.left.items()
    ]
    found += [
        f"  {log}: its last object stays, as no head says that the log ends there" for log, cut in made.cuts.items() if cut.kept_newest
    ]
    return found
