"""One object of calls/, from its bytes alone: what it says of itself against what it holds. Pure."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from clearpane.contract.lake import Place
from clearpane.contract.members import Manifest, NotAnObject, digest, unseal
from clearpane.contract.records import Row
from reader.verify.report import Finding, Kind

_FEED = 16 << 10  # bytes given to the decompressor at a time: what it leaves over is copied
# A broker's clock may be behind the proxy's by so much.
_CLOCKS_DIFFER = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A record as found: its place in the log and in the object."""

    request_id: str | None
    offset: int
    start: int  # bytes
    length: int


@dataclass(slots=True)
class Content:
    place: Place
    key: str
    manifest: Manifest | None = None
    records: list[Seen] = field(default_factory=list)
    newest: datetime | None = None  # when its last record was written to the lake
    findings: list[Finding] = field(default_factory=list)

    def find(self, kind: Kind, detail: str, request_id: str | None = None) -> None:
        self.findings.append(Finding(kind=kind, detail=detail, log=self.place.log, object=self.key, request_id=request_id))


def examine(place: Place, data: bytes) -> Content:
    """Never raises: what is wrong is in the findings."""
    content = Content(place, place.key("calls"))
    try:
        manifest, begin = unseal(data)
        _check_forms(manifest)
    except NotAnObject as error:
        content.find("damaged", str(error))
        return content
    content.manifest = manifest
    _check_manifest(content, manifest, data[begin:])
    _read_lines(content, manifest, data)
    return content


def members(data: bytes, position: int) -> Iterator[tuple[int, int, bytes]]:
    """(start, length, line) of each gzip member from `position` on. Raises NotAnObject at the first that cannot be opened."""
    view = memoryview(data)
    while position < len(data):
        inflate, end, pieces = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS), position, []
        while not inflate.eof:
            fed = view[end : end + _FEED]
            if not fed:
                raise NotAnObject(f"the member at byte {position} is cut")
            try:
                pieces.append(inflate.decompress(fed))
            except zlib.error as error:
                raise NotAnObject(f"the member at byte {position} is damaged: {error}") from error
            end += len(fed) - len(inflate.unused_data)
        yield position, end - position, b"".join(pieces)
        position = end


COMPARED = ("request_id", "log", "offset", "object", "object_offset", "object_length")


def differences(content: Content, rows: list[Row]) -> list[str]:
    """How an index (COMPARED of its rows) differs from the object: ids, places and pointers, row by row. Only the first is told."""
    if len(rows) != len(content.records):
        return [f"the index has {len(rows)} rows, the object {len(content.records)} records"]
    for row, seen in zip(rows, content.records, strict=True):
        stated = tuple(row[name] for name in COMPARED)
        if stated != (found := (seen.request_id, content.place.log, seen.offset, content.key, seen.start, seen.length)):
            return [f"at offset {seen.offset} the index states {stated}, the object {found}"]
    return []


def _check_forms(manifest: Manifest) -> None:
    """JSON can hold anything: what follows relies on these. Raises NotAnObject."""
    numbers = (manifest.start, manifest.end, manifest.count)
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers) or not isinstance(manifest.log, str):
        raise NotAnObject("the manifest's values have other types than a manifest's")


def _check_manifest(content: Content, manifest: Manifest, lines: bytes) -> None:
    place = content.place
    if (manifest.log, manifest.start) != (place.log, place.start):
        content.find("manifest", f"the object says that it is {manifest.log} from {manifest.start}, its key says otherwise")
    if not manifest.start < manifest.end:
        content.find("manifest", f"the object covers no offset: [{manifest.start}, {manifest.end})")
    if digest(lines) != manifest.sha256:
        content.find("digest", "the bytes behind the manifest are not those that were written (SHA-256)")


def _read_lines(content: Content, manifest: Manifest, data: bytes) -> None:
    before = manifest.start - 1
    try:
        for start, length, line in members(data, 0):
            if start == 0:  # the manifest's, empty: for gunzip it is a member like any other
                continue
            seen = _record(content, start, length, line)
            if seen is None:
                continue
            if not before < seen.offset < manifest.end:
                content.find("line", f"offset {seen.offset} behind {before}, in an object that ends at {manifest.end}", seen.request_id)
            before = seen.offset
            content.records.append(seen)
    except NotAnObject as error:
        content.find("damaged", f"behind offset {before}: {error}")
        return
    if len(content.records) != manifest.count:
        content.find("manifest", f"the object says that it holds {manifest.count} records, and holds {len(content.records)}")


def _record(content: Content, start: int, length: int, line: bytes) -> Seen | None:
    try:
        record = orjson.loads(line)
        lake, request_id = record["lake"], record["request_id"]
        offset, log, ingested_at = int(lake["offset"]), lake["log"], datetime.fromisoformat(lake["ingested_at"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        content.find("line", f"the line at byte {start} is no record: {type(error).__name__}: {error}")
        return None
    if not line.endswith(b"\n") or log != content.place.log:
        content.find("line", f"the line at byte {start} does not end, or states another log: {log}", request_id)
    _check_hour(content, offset, record, request_id)
    content.newest = ingested_at.replace(tzinfo=ingested_at.tzinfo or UTC)
    return Seen(request_id=request_id if isinstance(request_id, str) else None, offset=offset, start=start, length=length)


def _check_hour(content: Content, offset: int, record: dict[str, Any], request_id: str | None) -> None:
    """A record stands in the hour of its receipt, or in a later one; the first of an HTTP log exactly there."""
    place = content.place
    try:
        received = datetime.fromisoformat(record["timing"]["received_at"]).astimezone(UTC)
    except (KeyError, TypeError, ValueError):
        return  # a message that could not be parsed states no time
    by_http = place.log.startswith("h-")
    late = received >= place.hour + timedelta(hours=1) + (timedelta(0) if by_http else _CLOCKS_DIFFER)
    early = by_http and offset == place.start and received < place.hour
    if late or early:
        content.find(
            "manifest", f"the record at offset {offset} was received at {received.isoformat()}: not the hour of the key", request_id
        )
