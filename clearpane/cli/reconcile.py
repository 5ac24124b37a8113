"""`clearpane reconcile`: every call that was admitted, found again: in the lake, in the topic, in a spool, or dropped and said to be."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from clearpane.cli import conservation
from clearpane.cli.conservation import Balance, Evidence, Seen
from clearpane.cli.flags import add_settings
from clearpane.contract.identifiers import Log, spool_born_at
from clearpane.contract.lake import Head, head_key
from clearpane.settings import Settings
from clearpane.store import Store, StoreError
from consumer.sources.topic import NoTopic, lying
from proxy.shipper.account import accounts
from proxy.shipper.ranges import Ranges
from proxy.shipper.survey import Survey, survey
from proxy.spool import SpoolDamaged, spools
from reader.filter import BadFilter, moment
from reader.holdings import Held, holdings
from reader.lake import EARLY, Hours, LakeError, hours_of, location, open_lake
from reader.pruning import marks

SHOWN_MAX = 50
# Between a spool's birth and its folder.
_BEGINNING = timedelta(minutes=1)

_EPILOG = """exit code: 0 balanced, 1 findings, 2 could not look. Records that wait, in a spool or in the topic, are in flight, not missing.
Give the data folder of each proxy's host (a copy will do): what a spool dropped, and where it ended, is known there alone."""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "reconcile", help="admitted = completed + interrupted + in flight + dropped, per spool and hour", epilog=_EPILOG
    )
    parser.add_argument("--data", dest="folders", action="append", type=Path, metavar="DIR", help="a proxy's data folder; repeatable")
    parser.add_argument("--from", dest="since", metavar="TIME", help="only calls received then or later; default all")
    add_settings(parser, "lake", "kafka", "topic")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """0 balanced, 1 findings, 2 could not look."""
    try:
        found = asyncio.run(reconcile(open_lake(settings), arguments.folders or [settings.data], settings, _since(arguments)))
    except (LakeError, StoreError, NoTopic, BadFilter, SpoolDamaged, OSError, ValueError) as error:
        if arguments.json:
            print(orjson.dumps({"balanced": None, "error": str(error)}).decode())
        print(f"clearpane reconcile: could not look: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(orjson.dumps({"lake": location(settings), **found.to_dict()}).decode())
    else:
        print(*conservation.lines(found, SHOWN_MAX), sep="\n")
    return 0 if found.balanced else 1


def _since(arguments: argparse.Namespace) -> datetime | None:
    return None if arguments.since is None else moment(arguments.since, datetime.now().astimezone())


async def reconcile(store: Store, folders: list[Path], settings: Settings, since: datetime | None) -> Balance:
    """In the direction in which a record goes, so that one that moves meanwhile is seen at least once; the furthest sight counts.

    Raises LakeError, StoreError, NoTopic, SpoolDamaged, OSError, ValueError (an account that is damaged).
    """
    looked_at = datetime.now(UTC)
    evidence = await asyncio.to_thread(_evidence, folders)
    seen: dict[str, Seen] = {}
    notes: list[str] = []
    marked = await marks(store)
    pruned = [mark.before + EARLY for mark in marked.values()]
    begin = max([*pruned, *([since] if since else [])], default=None)
    if pruned:
        notes.append(f"the lake was pruned: calls received before {max(pruned):%Y-%m-%dT%H:%MZ} are not judged")
    unread = 0
    if settings.kafka:
        async for one in _in_topic(store, settings):
            if one is None:
                unread += 1
            else:
                _seen(seen, one[0]).topic.add(one[1])
    raw, by_kafka = await _in_lake(store, seen, begin)
    if await marks(store) != marked:
        raise LakeError("`clearpane retention` deleted objects meanwhile: look again")
    if by_kafka and not settings.kafka:
        notes.append("the lake has records that came by Kafka, and the topic was not looked at: give --kafka")
    if raw + unread:
        notes.append(f"{raw + unread} messages could not be read and name no spool: they are kept raw, and may be missing above")
    unknown = set(seen) - set(evidence)
    new = {spool for spool in unknown if _is_new(spool, looked_at)}
    evidence |= {spool: Evidence(spool, 0) for spool in new}
    if unknown - new:
        notes.append(f"{len(unknown - new):,} spools are in none of the data folders: what they have in flight or dropped looks missing")
    found = conservation.balance(evidence, seen, begin)
    found.notes += notes
    return found


def _evidence(folders: list[Path]) -> dict[str, Evidence]:
    """Of each spool that is there; of each that is gone, its account."""
    found: dict[str, Evidence] = {}
    for folder in folders:
        if not folder.is_dir():
            raise OSError(f"there is no folder {folder}: give --data the data folder of a proxy")
        for spool in spools(folder / "spool"):
            found[spool.name] = _of_spool(survey(spool, names=True))
        # Behind the spools: one that went away meanwhile has left its account before. And those that stand, behind the accounts.
        left = accounts(folder)
        standing = {spool.name for spool in spools(folder / "spool")}
        for account in left:
            if account.spool not in standing:
                found[account.spool] = Evidence(account.spool, account.end, account.settled, lost=account.lost)
    return found


def _of_spool(found: Survey) -> Evidence:
    tracker = found.tracker
    pending = Ranges((sequence, sequence) for sequence in sorted(tracker.calls))
    names = {sequence: (name.request_id, name.received_at) for sequence, name in found.names.items()}
    return Evidence(found.spool, tracker.end, tracker.done, pending, tracker.lost_for, names)


async def _in_topic(store: Store, settings: Settings) -> AsyncIterator[tuple[str, int] | None]:
    """(spool, sequence) of what lies there behind the end of the lake; None for a message that cannot be read."""
    prefix = head_key(Log.of_partition(settings.topic, 0, settings.incarnation).name).removesuffix("0.json")
    ends = {}
    for entry in await store.list(prefix):
        number = entry.key.removeprefix(prefix).removesuffix(".json")
        if number.isdigit():
            ends[int(number)] = await _end(store, entry.key)
    async for one in lying(settings, ends):
        yield (one.source, one.sequence) if one.source is not None and one.sequence is not None else None


async def _end(store: Store, key: str) -> int:
    try:
        return Head.from_json(await store.get(key)).end
    except ValueError as error:
        raise LakeError(f"{key}: {error}: delete it and restart the consumers, they find the end by listing") from error


async def _in_lake(store: Store, seen: dict[str, Seen], begin: datetime | None) -> tuple[int, bool]:
    """Fills `seen`; how many records name no spool, and whether any came by Kafka."""
    raw, by_kafka = 0, False
    async for batch in holdings(store, hours_of(begin, None) if begin else Hours()):
        for one in batch:
            by_kafka = by_kafka or (one.log or "").startswith("k-")
            if one.source is None or one.sequence is None:
                raw += 1
            elif _counts(one, begin):
                _seen(seen, one.source).add(one.sequence, one.request_id, one.received_at, one.end)
            else:
                _seen(seen, one.source).lake.add(one.sequence)
    return raw, by_kafka


def _is_new(spool: str, looked_at: datetime) -> bool:
    """Whether a worker that began it may not have made its folder yet when we looked."""
    try:
        return spool_born_at(spool) > looked_at - _BEGINNING
    except ValueError:
        return False


def _counts(one: Held, begin: datetime | None) -> bool:
    return begin is None or (one.received_at is not None and one.received_at >= begin)


def _seen(seen: dict[str, Seen], spool: str) -> Seen:
    return seen.setdefault(spool, Seen())
