"""What an object in calls/ says, checked against itself. Pure."""

from datetime import datetime
from typing import Any

from clearpane.contract import members
from clearpane.contract.members import Manifest, NotAnObject
from consumer.lake import index
from consumer.lake.tail import ChainBroken, Tail, Written


def manifest_of(data: bytes, key: str) -> Manifest:
    """Raises ChainBroken."""
    try:
        return members.unseal(data)[0]
    except NotAnObject as error:
        raise ChainBroken(f"{key} is not an object of ours: {error}") from error


def inspect(data: bytes, key: str) -> tuple[Manifest, Written]:
    """Raises ChainBroken for a damaged object."""
    manifest = manifest_of(data, key)
    try:
        records = [record for _, _, record in index.records_in(data)]
    except NotAnObject as error:
        raise ChainBroken(f"{key} is damaged: {error}") from error
    content = data[members.unseal(data)[1] :]
    if members.digest(content) != manifest.sha256 or len(records) != manifest.count:
        raise ChainBroken(f"{key} is damaged: its digest or count differs")
    calls = [record for record in records if record.get("request_id")]
    return manifest, Written(
        ids=[record["request_id"] for record in calls],
        second_copies=[record["request_id"] for record in calls if record.get("attempt", 1) > 1],
        ingested_ms=max((_ingested_ms(record) for record in records), default=0),
        last_offset=calls[-1]["lake"]["offset"] if calls else None,
    )


def check_follows(manifest: Manifest, key: str, tail: Tail) -> None:
    """Raises ChainBroken unless the object belongs at the tail."""
    stated = (manifest.log, manifest.start, manifest.previous_sha256)
    if stated != (tail.log, tail.end, tail.sha256) or manifest.end <= manifest.start:
        raise ChainBroken(f"{key} does not follow {tail.key or 'the start of its log'}")


def _ingested_ms(record: dict[str, Any]) -> int:
    place = record.get("lake")
    moment = place.get("ingested_at") if isinstance(place, dict) else None
    return int(datetime.fromisoformat(moment).timestamp() * 1000) if isinstance(moment, str) else 0
