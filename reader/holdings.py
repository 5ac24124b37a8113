"""What the lake holds of each spool: which sequences, and where each stands."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from clearpane.store import Store
from reader import index
from reader.lake import Hours, hours, objects
from reader.rows import contents

_COLUMNS = ["source", "sequence", "request_id", "received_at", "end", "log", "object"]


@dataclass(frozen=True, slots=True)
class Held:
    """One record. `source` None: a message that could not be read."""

    source: str | None
    sequence: int | None
    request_id: str | None
    received_at: datetime | None
    end: str | None
    log: str | None


async def holdings(store: Store, within: Hours) -> AsyncIterator[list[Held]]:
    """File by file. Raises StoreError, LakeError."""
    async for hour in hours(store, "index", within):
        async for file, data in contents(store, await objects(store, "index", hour)):
            yield [_held(row) for row in index.columns(file.key, data, _COLUMNS) if file.owns(row)]


def _held(row: dict[str, Any]) -> Held:
    return Held(row["source"], row["sequence"], row["request_id"], row["received_at"], row["end"], row["log"])
