"""Account: what became of a spool's sequences, kept when the spool itself is taken away. `<data>/accounts/<spool>.json`.

Each record in the lake states its spool and sequence, so a hole shows by itself; only this tells a record that was
dropped, and said to be, from one that is missing, and where the spool ended.
"""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from clearpane.contract.identifiers import is_spool_id
from proxy.shipper import metrics
from proxy.shipper.ranges import Ranges
from proxy.shipper.tracker import Tracker

log = logging.getLogger(__name__)

# A few hundred bytes each, one for each life of a worker; the oldest go first.
_KEPT_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Account:
    """Sequences [0, `end`) were given. `settled`: acknowledged or lost; `lost` by reason, but a record in the lake counts all the same."""

    spool: str
    end: int
    settled: Ranges = field(default_factory=Ranges)
    lost: dict[str, Ranges] = field(default_factory=dict)

    @staticmethod
    def of(spool: str, tracker: Tracker) -> "Account":
        return Account(spool, tracker.end, tracker.done, tracker.lost_for)

    def to_json(self) -> bytes:
        lost = {reason: found.pairs() for reason, found in self.lost.items()}
        return orjson.dumps({"spool": self.spool, "end": self.end, "settled": self.settled.pairs(), "lost": lost})

    @staticmethod
    def from_json(data: bytes) -> "Account":
        """Raises ValueError for anything but what to_json makes."""
        try:
            found = orjson.loads(data)
            lost = {str(reason): _ranges(pairs) for reason, pairs in found["lost"].items()}
            account = Account(found["spool"], found["end"], _ranges(found["settled"]), lost)
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError("not an account of this version") from error
        if not isinstance(account.spool, str) or not is_spool_id(account.spool) or not isinstance(account.end, int) or account.end < 0:
            raise ValueError("not an account of this version")
        return account


def keep(data: Path, spool: str, tracker: Tracker) -> None:
    """Before the spool is taken away. A disk that refuses is counted: the spool goes all the same, as that frees the disk."""
    if not tracker.end:
        return  # no call; or what was left of a spool whose removal was cut short, and its account stands
    folder = data / "accounts"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _place(folder / f"{spool}.json", folder / f".{spool}", Account.of(spool, tracker).to_json())
        for old in sorted(folder.glob("*.json"))[:-_KEPT_MAX]:
            old.unlink(missing_ok=True)
    except OSError as error:
        metrics.DISK_ERRORS.inc()
        log.warning("spool %s: its account cannot be kept: %s", spool, error.strerror)


def _place(path: Path, staging: Path, data: bytes) -> None:
    """There wholly or not at all, also when the power goes: the spool is removed right behind it."""
    with staging.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    staging.rename(path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def accounts(data: Path) -> list[Account]:
    """Oldest first. Raises OSError, and ValueError naming a file that is damaged."""
    found = []
    for path in sorted((data / "accounts").glob("*.json")):
        try:
            found.append(Account.from_json(path.read_bytes()))
        except ValueError as error:
            raise ValueError(f"{path}: {error}: move it away") from error
    return found


def _ranges(pairs: list[tuple[int, int]]) -> Ranges:
    found = Ranges()
    for first, last in pairs:
        if not (type(first) is int and type(last) is int and 0 <= first <= last):
            raise ValueError("not an account of this version")
        found.add(first, last)
    return found
