"""The demo's account: what the provider stated against what was recorded, call by call."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from clearpane.cli.fake import Entry
from clearpane.cli.fake.models import Tokens
from clearpane.contract.records import Record, Row

# Leaf buckets of the provider's count -> columns of the row.
_COLUMNS = {field.name: f"{field.name}_tokens" for field in fields(Tokens)}


@dataclass(frozen=True, slots=True)
class Recorded:
    """One call as the lake has it."""

    row: Row
    record: Record

    @property
    def sha256(self) -> str | None:
        found: str | None = self.record["request"]["body_sha256"]
        return found


def missing(entries: Iterable[Entry], recorded: Iterable[Recorded]) -> list[str]:
    """The provider's calls that the lake does not have (yet), by path and model."""
    held = {call.sha256 for call in recorded}
    return [_name(entry) for entry in entries if entry.request_sha256 not in held]


def differences(entries: Sequence[Entry], recorded: Sequence[Recorded]) -> list[str]:
    """In words, everything in which the two sides differ. Empty: each call once, tokens and cost to the last digit."""
    found = [f"{name}: not recorded" for name in missing(entries, recorded)]
    known = {entry.request_sha256: entry for entry in entries}
    calls = defaultdict(list)
    for call in recorded:
        calls[call.sha256].append(call)
    for sha256, same in calls.items():
        entry = known.get(sha256 or "")
        if entry is None:
            found.append(f"{same[0].row['request_id']}: recorded, but the provider never saw it")
            continue
        if len(same) > 1:
            found.append(f"{_name(entry)}: recorded {len(same)} times")
        found += [f"{_name(entry)}: {words}" for words in _compare(entry, same[0].row)]
    return found


def stated(entries: Iterable[Entry]) -> Decimal:
    """USD of all calls whose usage the provider stated."""
    return sum((entry.cost for entry in entries if entry.cost is not None), Decimal(0))


def _compare(entry: Entry, row: Row) -> list[str]:
    found = []
    if row["status"] != entry.status:
        found.append(f"status {row['status']} recorded, {entry.status} answered")
    if entry.tokens is None:
        if row["usage_source"] == "provider":
            found.append("usage recorded as the provider's, which stated none")
        return found
    if row["usage_source"] != "provider":
        found.append(f"usage recorded as {row['usage_source']}, though the provider stated it")
    for leaf, column in _COLUMNS.items():
        if (row[column] or 0) != getattr(entry.tokens, leaf):
            found.append(f"{row[column]} {column} recorded, {getattr(entry.tokens, leaf)} stated")
    if _decimal(row["cost_total"]) != entry.cost:
        found.append(f"cost {row['cost_total']} recorded, {entry.cost} by the list price")
    return found


def _decimal(value: Any) -> Decimal | None:
    return None if value is None else Decimal(value)


def _name(entry: Entry) -> str:
    return f"{entry.path} {entry.model or f'(status {entry.status})'}"
