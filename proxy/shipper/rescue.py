"""Rescue: every record that can still be read of a spool, as envelopes in a file. For spools that no shipper can take: damaged,
renamed, of another machine. Touches nothing of the spool."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from clearpane.contract.identifiers import is_spool_id
from proxy.shipper import envelopes
from proxy.shipper.envelopes import Message
from proxy.shipper.ranges import Ranges
from proxy.spool import COMPLETED, GAP, Damage, Frame, SpoolDamaged, is_held, walk


class NoRescue(Exception):
    """Why nothing can be written: what to do."""


@dataclass(slots=True)
class Rescued:
    """`running`: of a living spool, calls that have no record yet."""

    records: int = 0
    interrupted: int = 0
    running: int = 0
    gaps: list[Any] = field(default_factory=list)
    unreadable: list[dict[str, Any]] = field(default_factory=list)  # frames that are whole and yet no record
    damage: list[Damage] = field(default_factory=list)
    frames: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        damage = [{"segment": one.segment, "from": one.start, "to": one.end} for one in self.damage]
        return {
            "records": self.records,
            "interrupted": self.interrupted,
            "running": self.running,
            "frames": dict(self.frames),
            "gaps": self.gaps,
            "unreadable": self.unreadable,
            "damage": damage,
        }


def rescue(folder: Path, to: Path, spool_id: str) -> Rescued:
    """Writes `<to>/<spool_id>.jsonl`, secrets redacted as in what the shipper sends. Raises NoRescue, OSError, SpoolDamaged (disk)."""
    if not is_spool_id(spool_id):
        raise NoRescue(f"{spool_id!r} is no spool's id (32 hexadecimal digits): if the folder was renamed, give --spool-id")
    to.mkdir(parents=True, exist_ok=True)
    if to.resolve().is_relative_to(folder.resolve()):
        raise NoRescue("the spool itself is not touched: give another folder")
    try:
        # The owner's alone: these are prompts and answers.
        out = os.fdopen(os.open(to / f"{spool_id}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
    except FileExistsError as error:
        raise NoRescue(f"{to / f'{spool_id}.jsonl'} exists: give another folder") from error
    with out:
        return _write(folder, out, spool_id)


def _write(folder: Path, out: BinaryIO, spool_id: str) -> Rescued:
    found = Rescued()
    living = is_held(folder)
    unfinished: dict[int, Frame] = {}
    written: set[int] = set()
    dropped: list[tuple[int, int]] = []
    for one in walk(folder, sealed=not living, spool_id=spool_id):
        if isinstance(one, Damage):
            found.damage.append(one)
            continue
        found.frames[one.type.name.lower()] += 1
        if one.type == GAP:
            found.gaps.append(_json(one))
            dropped += _dropped(found.gaps[-1])
        elif one.type == COMPLETED:
            unfinished.pop(one.sequence, None)
            found.records += _line(found, out, one, spool_id) if one.sequence not in written else 0
            written.add(one.sequence)
        elif one.sequence not in written:
            unfinished[one.sequence] = one
    ended = Ranges(dropped)
    cut_off = [frame for sequence, frame in unfinished.items() if sequence not in ended]
    if living:
        found.running = len(cut_off)
    else:
        found.interrupted = sum(_line(found, out, one, spool_id) for one in cut_off)
    return found


def _dropped(gap: Any) -> list[tuple[int, int]]:
    """The calls that a gap names: they ended, and the worker dropped their records."""
    try:
        return [(int(first), int(last)) for first, last in gap["sequences"]]
    except (TypeError, KeyError, ValueError):
        return []


def _line(found: Rescued, out: BinaryIO, frame: Frame, spool_id: str) -> int:
    try:
        out.write(_envelope(frame, spool_id).data + b"\n")
    except SpoolDamaged as error:
        found.unreadable.append({"segment": frame.segment, "to": frame.end, "sequence": frame.sequence, "why": str(error)})
        return 0
    return 1


def _envelope(frame: Frame, spool_id: str) -> Message:
    if frame.type == COMPLETED:
        return envelopes.completed(frame.payload, spool_id, frame.sequence, 1)
    return envelopes.interrupted(frame.payload, spool_id, frame.sequence, 1)


def _json(frame: Frame) -> Any:
    try:
        return orjson.loads(frame.payload)
    except orjson.JSONDecodeError:
        return None
