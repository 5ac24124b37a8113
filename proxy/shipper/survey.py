"""Survey: what a spool holds and what became of it, by its frames and its journal. Touches nothing, so it may look at any time."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from proxy.shipper import journal
from proxy.shipper.tracker import Path as Way
from proxy.shipper.tracker import Place, Tracker
from proxy.spool import COMPLETED, GAP, Damage, Frame, FrameType, SpoolDamaged, is_held, segments, split_completed, walk
from proxy.spool.folder import segment_path
from proxy.spool.walk import start_of


@dataclass(frozen=True, slots=True)
class Name:
    """Whose record a sequence is. `received_at` as the facts state it; `place` of the record, if the call has one."""

    request_id: str | None
    received_at: str | None
    place: Place | None = None


@dataclass(slots=True)
class Survey:
    """`living`: a writer, or the shipper that has adopted it, holds the lock. `names` by sequence, of the frames that are still there."""

    spool: str
    living: bool
    tracker: Tracker
    segments: int = 0
    bytes: int = 0
    frames: Counter[FrameType] = field(default_factory=Counter)
    damage: list[Damage] = field(default_factory=list)
    names: dict[int, Name] = field(default_factory=dict)
    oldest_at: str | None = None  # `recorded_at` of the first record that is not delivered

    @property
    def waiting(self) -> int:
        """Records that are not delivered yet; calls that still run are none."""
        return sum(call.place is not None or call.path is not None or call.final for call in self.tracker.calls.values())

    @property
    def in_doubt(self) -> int:
        return sum(call.path is Way.KAFKA for call in self.tracker.calls.values())

    def to_dict(self, now: datetime) -> dict[str, Any]:
        return {
            "spool": self.spool,
            "state": "living" if self.living else "dead",
            "segments": self.segments,
            "bytes": self.bytes,
            "admitted": self.frames[FrameType.ADMITTED],
            "completed": self.frames[FrameType.COMPLETED],
            "settled": self.tracker.done.count,
            "waiting": self.waiting,
            "running": len(self.tracker.calls) - self.waiting,
            "in_doubt": self.in_doubt,
            "oldest_s": _age_s(self.oldest_at, now),
            "lost": {reason: found.count for reason, found in self.tracker.lost_for.items()},
            "damaged_bytes": sum(damage.end - damage.start for damage in self.damage),
        }


def survey(folder: Path, *, names: bool = False, ours: bool = False) -> Survey:
    """The journal before the frames: what is settled meanwhile still shows as waiting. `ours`: the caller holds the lock.

    Raises OSError, SpoolDamaged (disk).
    """
    found = Survey(folder.name, not ours and is_held(folder), restored(folder))
    sizes = [size for number in segments(folder) if (size := _size(segment_path(folder, number))) is not None]
    found.segments, found.bytes = len(sizes), sum(sizes)
    for one in walk(folder, sealed=not found.living):
        if isinstance(one, Damage):
            found.damage.append(one)
        else:
            _count(found, one, names=names)
    if not found.living:
        found.tracker.sealed()
    return found


def restored(folder: Path) -> Tracker:
    """As the journal has it. Raises OSError."""
    tracker = Tracker()
    try:
        tracker.restore(journal.peek(folder))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise SpoolDamaged(f"{folder.name}: its journal is of another version") from error
    return tracker


def facts_of(frame: Frame) -> dict[str, Any] | None:
    """What the frame states of its call; None for one that cannot be read, or speaks of none."""
    if frame.type == GAP:
        return None
    try:
        found = split_completed(frame.payload)[0] if frame.type == COMPLETED else orjson.loads(frame.payload)
    except (SpoolDamaged, orjson.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


def text_at(facts: dict[str, Any] | None, *path: str) -> str | None:
    value: Any = facts
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


def _count(found: Survey, frame: Frame, *, names: bool) -> None:
    found.frames[frame.type] += 1
    if frame.type == GAP:
        try:
            found.tracker.see_gap(frame)
        except (ValueError, TypeError, KeyError):
            return
    else:
        found.tracker.see(frame)
    waits = frame.type == COMPLETED and found.oldest_at is None and frame.sequence in found.tracker.calls
    if waits or (names and frame.type != GAP):
        facts = facts_of(frame)
        if waits:
            found.oldest_at = text_at(facts, "recorded_at")
        if names and facts is not None:
            place = (frame.segment, start_of(frame)) if frame.type == COMPLETED else None
            found.names[frame.sequence] = Name(text_at(facts, "request_id"), text_at(facts, "timing", "received_at"), place)


def _age_s(stated: str | None, now: datetime) -> float | None:
    try:
        moment = datetime.fromisoformat(stated or "")
    except ValueError:
        return None
    return round(max(0.0, (now - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))).total_seconds()), 1)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
