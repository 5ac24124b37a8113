"""What the lake holds of each spool: which sequences, and where each stands. And where a log ends, by all that says so."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from clearpane.contract.lake import Head, head_key, hour_prefix, parse_key
from clearpane.contract.members import NotAnObject, unseal
from clearpane.store import NotFound, Store
from reader import index
from reader.lake import DamagedIndex, Hours, LakeError, LakeObject, hours, objects
from reader.pruning import marks
from reader.rows import contents
from reader.verify.content import members

_COLUMNS = ["source", "sequence", "request_id", "received_at", "end", "log", "object"]
_MANIFEST_BYTES = 64 << 10


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
    """File by file: what stands in calls/, told by the index where it has rows of an object, else by the object itself.

    An index file may be missing or damaged: a consumer was killed between the two, or a rule of the bucket took it.
    Raises StoreError, LakeError.
    """
    async for hour in hours(store, "calls", within):
        # The index first: a file of it is written behind its object, so the second listing has the objects of the first.
        files = await objects(store, "index", hour)
        standing = {one.key: one for one in await objects(store, "calls", hour)}
        told: set[str] = set()
        async for file, data in contents(store, files):
            try:
                stated = index.columns(file.key, data, _COLUMNS)
            except DamagedIndex:
                continue
            rows = [row for row in stated if file.owns(row) and row["object"] in standing]
            told.update(row["object"] for row in rows)
            yield [_held(row) for row in rows]
        for one in (one for key, one in standing.items() if key not in told):
            yield await _of_object(store, one)


async def end_of(store: Store, log: str, within: Hours) -> int:
    """Where the log ends: the furthest of what its head says, its last object in these hours, and the mark of a retention; 0: it has none.

    A head is a hint: it may be gone, or behind where its writer died. Raises StoreError, LakeError.
    """
    mark = (await marks(store)).get(log)
    last: tuple[int, str] | None = None
    async for hour in hours(store, "calls", within):
        for entry in await store.list(f"{hour_prefix('calls', hour)}{log}-"):
            parsed = parse_key(entry.key)
            if parsed is not None and parsed[1].log == log:
                last = max(last or (0, ""), (parsed[1].start, entry.key))
    return max(await _head_end(store, log), mark.end if mark else 0, await _object_end(store, last[1]) if last else 0)


async def _head_end(store: Store, log: str) -> int:
    try:
        return Head.from_json(await store.get(head_key(log))).end
    except NotFound:
        return 0
    except ValueError as error:
        raise LakeError(f"{head_key(log)}: {error}: delete it and restart the consumers, they find the end by listing") from error


async def _object_end(store: Store, key: str) -> int:
    try:
        return unseal(await store.get_range(key, 0, _MANIFEST_BYTES))[0].end
    except NotAnObject as error:
        raise _damaged(key, error) from error
    except NotFound as error:
        raise _gone(key) from error


async def _of_object(store: Store, one: LakeObject) -> list[Held]:
    try:
        data = await store.get(one.key)
        return await asyncio.to_thread(_records, one.place.log, data)
    except (NotAnObject, orjson.JSONDecodeError) as error:
        raise _damaged(one.key, error) from error
    except NotFound as error:
        raise _gone(one.key) from error


def _records(log: str, data: bytes) -> list[Held]:
    """Of an object whose index is missing. Raises NotAnObject, JSONDecodeError."""
    found = [orjson.loads(line) for _, _, line in members(data, unseal(data)[1])]
    return [_of_record(log, record if isinstance(record, dict) else {}) for record in found]


def _of_record(log: str, record: dict[str, Any]) -> Held:
    source, sequence, request_id = (record.get(name) for name in ("source", "sequence", "request_id"))
    timing, response = (found if isinstance(found := record.get(name), dict) else {} for name in ("timing", "response"))
    return Held(
        source=source if isinstance(source, str) else None,
        sequence=sequence if type(sequence) is int else None,
        request_id=request_id if isinstance(request_id, str) else None,
        received_at=_moment(timing.get("received_at")),
        end=end if isinstance(end := response.get("end"), str) else None,
        log=log,
    )


def _moment(stated: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(stated) if isinstance(stated, str) else None
    except ValueError:
        return None
    return found and (found if found.tzinfo else found.replace(tzinfo=UTC))


def _held(row: dict[str, Any]) -> Held:
    return Held(row["source"], row["sequence"], row["request_id"], row["received_at"], row["end"], row["log"])


def _damaged(key: str, error: Exception) -> LakeError:
    return LakeError(f"{key} is damaged ({error}): `clearpane verify` says more")


def _gone(key: str) -> LakeError:
    return LakeError(f"{key} went away while it was looked at: look again")
