"""`clearpane spool`: what lies on this machine's disk, looked at, delivered again, or saved from damage."""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from clearpane.cli.flags import add_settings
from clearpane.contract.identifiers import Log, is_spool_id, spool_born_at
from clearpane.settings import Settings
from clearpane.store import Store, StoreError
from proxy.shipper import replay as replaying
from proxy.shipper.ranges import Ranges
from proxy.shipper.rescue import NoRescue, rescue
from proxy.shipper.survey import facts_of, survey, text_at
from proxy.spool import COMPLETED, GAP, Damage, Frame, SpoolDamaged, is_held, split_completed, spools, walk
from proxy.spool.walk import start_of

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse gives its type no other name

_EXIT = "Exit code: 0; 1 damage, refusal, or records that cannot be delivered again; 2 could not look."
_EPILOG = f"SPOOL is a spool's id, or the path of its folder. {_EXIT}"
# A proxy's clock may be ahead of the lake's.
_SLACK = timedelta(hours=1)


class _Refused(Exception):
    """Why nothing is done: what to do."""


def register(commands: "Commands") -> None:
    parser = commands.add_parser("spool", help="list, inspect, replay or rescue spools", epilog=_EPILOG)
    kinds = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    listing = kinds.add_parser("list", help="every spool of a data folder and what waits in it", epilog=_EXIT)
    inspect = kinds.add_parser("inspect", help="the frames of a spool, and its damage by byte", epilog=_EPILOG)
    replay = kinds.add_parser("replay", help="have a dead spool's records delivered again that the lake lacks", epilog=_EPILOG)
    saving = kinds.add_parser("rescue", help="write every record of a damaged or foreign spool to a folder", epilog=_EPILOG)
    for each in (inspect, replay, saving):
        each.add_argument("spool", metavar="SPOOL")
    for each in (listing, inspect, replay, saving):
        add_settings(each, "data")
        each.add_argument("--json", action="store_true", help="JSON")
    inspect.add_argument("--facts", action="store_true", help="with what each frame states of its call, headers included")
    inspect.add_argument("--bodies", action="store_true", help="with the bodies as they were on the wire, secrets included")
    add_settings(replay, "lake", "kafka", "topic", "intake")
    replay.add_argument("--dry-run", action="store_true", help="say what would be delivered again, and change nothing")
    replay.add_argument("--never-kafka", action="store_true", help="of a spool without a journal: its proxy never had a Kafka")
    saving.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where the records go")
    saving.add_argument("--spool-id", metavar="ID", help="the spool's id, where its folder was renamed")
    for each, command in ((listing, _list), (inspect, _inspect), (replay, _replay), (saving, _rescue)):
        each.set_defaults(run=run, command=command)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """0; 1 damage found, or refused; 2 could not look."""
    try:
        code: int = arguments.command(arguments, settings)
    except (_Refused, NoRescue, replaying.NoReplay) as error:
        print(f"clearpane spool: {error}", file=sys.stderr)
        return 1
    except (OSError, SpoolDamaged, StoreError) as error:
        print(f"clearpane spool: could not look: {error}", file=sys.stderr)
        return 2
    return code


def _list(arguments: argparse.Namespace, settings: Settings) -> int:
    now = datetime.now(UTC)
    found = [survey(folder).to_dict(now) for folder in spools(settings.data / "spool")]
    print(*([orjson.dumps(found).decode()] if arguments.json else _table(found)), sep="\n")
    return 1 if any(one["damaged_bytes"] for one in found) else 0


_COLUMNS = ("spool", "state", "segments", "bytes", "admitted", "completed", "settled", "waiting", "running", "in_doubt", "oldest")


def _table(found: list[dict[str, Any]]) -> Iterator[str]:
    if not found:
        yield "no spools: everything is delivered, or no worker has run here"
        return
    rows = [[_cell(one, name) for name in _COLUMNS] for one in found]
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    names = [name.upper().replace("_", " ") for name in _COLUMNS]
    for row in (names, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for one in found:
        yield from (f"{one['spool']}: {count:,} records lost ({reason})" for reason, count in one["lost"].items())
        if one["damaged_bytes"]:
            yield f"{one['spool']}: {one['damaged_bytes']:,} bytes are damaged: `clearpane spool inspect` shows where"


def _cell(one: dict[str, Any], name: str) -> str:
    if name == "oldest":
        return "-" if one["oldest_s"] is None else _age(one["oldest_s"])
    return f"{one[name]:,}" if isinstance(one[name], int) else str(one[name])


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _inspect(arguments: argparse.Namespace, settings: Settings) -> int:
    folder = _folder(arguments.spool, settings)
    damaged = 0
    for one in walk(folder, sealed=not is_held(folder)):
        damaged += isinstance(one, Damage)
        shown = _damage(one) if isinstance(one, Damage) else _frame(one, facts=arguments.facts, bodies=arguments.bodies)
        print(orjson.dumps(shown).decode() if arguments.json else _line(shown))
    return 1 if damaged else 0


def _damage(one: Damage) -> dict[str, Any]:
    return {"segment": one.segment, "from": one.start, "to": one.end, "type": "damaged", "bytes": one.end - one.start}


def _frame(frame: Frame, *, facts: bool, bodies: bool) -> dict[str, Any]:
    stated = facts_of(frame)
    shown: dict[str, Any] = {
        "segment": frame.segment,
        "from": start_of(frame),
        "to": frame.end,
        "type": frame.type.name.lower(),
        "bytes": frame.end - start_of(frame),
        "sequence": frame.sequence,
        "request_id": text_at(stated, "request_id"),
    }
    if frame.type == GAP:
        shown["gap"] = bytes(frame.payload).decode("utf-8", "replace")
    elif stated is None:
        shown["unreadable"] = True
    if facts and stated is not None:
        shown["facts"] = stated
    if bodies and frame.type == COMPLETED and stated is not None:
        _, request, response = split_completed(frame.payload)
        shown |= {"request": request.decode("utf-8", "backslashreplace"), "response": response.decode("utf-8", "backslashreplace")}
    return shown


def _line(shown: dict[str, Any]) -> str:
    where = f"{shown['segment']:>8}  {shown['from']:>10} to {shown['to']:<10}  {shown['type']:<9}"
    parts = [f"{shown['bytes']:,} bytes" if shown["type"] == "damaged" else f"{shown['sequence']:>8}", shown.get("request_id") or ""]
    parts += ["cannot be read" if shown.get("unreadable") else "", shown.get("gap", "")]
    parts += [orjson.dumps(shown["facts"]).decode()] if "facts" in shown else []
    parts += [f"{name}: {shown[name]!r}" for name in ("request", "response") if name in shown]
    return "  ".join((where, *(part for part in parts if part)))


def _rescue(arguments: argparse.Namespace, settings: Settings) -> int:
    folder = _folder(arguments.spool, settings)
    spool_id = arguments.spool_id or folder.resolve().name
    found = rescue(folder, arguments.to, spool_id)
    report = {"spool": spool_id, "folder": str(folder), **found.to_dict()}
    (arguments.to / f"{spool_id}.report.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    if arguments.json:
        print(orjson.dumps(report).decode())
    else:
        print(f"{found.records + found.interrupted:,} records, {found.interrupted:,} of them of calls that were cut off, in {arguments.to}")
        for damage in found.damage:
            print(f"damaged: segment {damage.segment}, bytes {damage.start} to {damage.end}")
        for frame in found.unreadable:
            print(f"unreadable: segment {frame['segment']}, the frame that ends at {frame['to']}: {frame['why']}")
    if not found.frames:
        print("no frame could be read: was the folder renamed? Give --spool-id", file=sys.stderr)
    return 1 if found.damage or found.unreadable or not found.frames else 0


def _replay(arguments: argparse.Namespace, settings: Settings) -> int:
    folder = _folder(arguments.spool, settings)
    if folder.resolve().parent != (settings.data / "spool").resolve():
        raise _Refused(f"move {folder} to {settings.data / 'spool'} first, under the same name: the shipper of that folder delivers it")
    with replaying.claimed(folder):
        made = asyncio.run(_planned(folder, settings, never_kafka=arguments.never_kafka))
        if made.again and not arguments.dry_run:
            replaying.carry_out(folder, made)
    told = {name: len(getattr(made, name)) for name in ("to_kafka", "to_http", "too_old", "unreadable")}
    told |= {"held": made.held, "waiting": made.waiting}
    if arguments.json:
        print(orjson.dumps({"spool": folder.name, "dry_run": arguments.dry_run, **told}).decode())
    else:
        _tell(made, told, dry_run=arguments.dry_run)
    return 1 if made.too_old or made.unreadable else 0


def _tell(made: replaying.Plan, told: dict[str, int], *, dry_run: bool) -> None:
    print(f"{made.held:,} records are in the lake; {made.waiting:,} wait for the shipper anyway")
    print(f"again: {told['to_kafka']:,} by Kafka, {told['to_http']:,} by HTTP")
    print(f"not again: {told['too_old']:,} too old, {told['unreadable']:,} unreadable")
    changed = made.again and not dry_run
    print("start `clearpane proxy` or `up` again: its shipper delivers them" if changed else "nothing was changed")


async def _planned(folder: Path, settings: Settings, *, never_kafka: bool) -> replaying.Plan:
    from reader.lake import LakeError, open_lake

    if not settings.kafka and not settings.intake:
        raise _Refused("there is no way to deliver: give --kafka, --intake, or both, as the proxy has them")
    born = _born(folder.name)
    # The intake first: its answer waits for a write of this spool that is under way there.
    told = await _told_end(folder.name, settings) if settings.intake else None
    try:
        lake = await _lake_of(folder.name, born, open_lake(settings))
    except LakeError as error:
        raise _Refused(str(error)) from error
    if told is not None and told != lake.http_end:
        raise _Refused(
            f"the lake ends at {lake.http_end} for this spool, and the intake says {told}: restart the consumers, they hold another end of "
            "this spool; or is it another lake?"
        )
    ways = replaying.Ways(
        partitions=await _partitions(settings) if settings.kafka else 0,
        kafka_record_bytes_max=settings.kafka_record_bytes_max,
        intake=bool(settings.intake),
        never_kafka=never_kafka,
    )
    return await asyncio.to_thread(replaying.plan, folder, lake, ways, datetime.now(UTC))


async def _told_end(spool_id: str, settings: Settings) -> int:
    """Where the intake has the spool's HTTP log end: what it has below that, it would take for delivered."""
    from proxy.shipper.post import Intake, Stored, Unavailable

    assert settings.intake is not None
    async with Intake(settings.intake, settings.intake_secret, settings.post_timeout_s) as intake:
        answer = await intake.end(spool_id)
    if isinstance(answer, Stored):
        return answer.end
    why = f"{answer.reason}, status {answer.status}" if isinstance(answer, Unavailable) else "it answers as no intake does"
    raise _Refused(f"the intake does not say where this spool ends ({why}): is the consumer running, and `intake` its address?")


async def _lake_of(spool_id: str, born: datetime, store: Store) -> replaying.Lake:
    from reader.holdings import end_of, holdings
    from reader.lake import Hours, whole_hour

    held, by_kafka = Ranges(), False
    within = Hours(first=whole_hour(born - _SLACK))
    async for batch in holdings(store, within):
        for one in batch:
            if one.source == spool_id and one.sequence is not None:
                held.add(one.sequence)
                by_kafka = by_kafka or (one.log or "").startswith("k-")
    return replaying.Lake(held=held, http_end=await end_of(store, Log.of_spool(spool_id).name, within), by_kafka=by_kafka)


def _born(spool_id: str) -> datetime:
    try:
        return spool_born_at(spool_id)
    except ValueError as error:
        raise _Refused(f"{spool_id} is no spool's id: its folder was renamed; give it the old name") from error


async def _partitions(settings: Settings) -> int:
    from consumer.sources.topic import NoTopic, partitions

    try:
        return await partitions(settings)
    except NoTopic as error:
        raise _Refused(str(error)) from error


def _folder(named: str, settings: Settings) -> Path:
    folder = settings.data / "spool" / named if is_spool_id(named) and not Path(named).is_dir() else Path(named)
    if not folder.is_dir():
        raise _Refused(f"there is no folder {folder}: `clearpane spool list` shows the spools of --data")
    return folder
