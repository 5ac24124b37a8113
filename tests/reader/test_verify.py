"""Every kind of damage to a lake is found, and named."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearpane.contract.lake import head_key, place
from clearpane.contract.members import Manifest, digest, member, seal, unseal
from clearpane.store import Entry, Store
from reader.verify import Finding, Report, verify
from reader.verify.chain import Chain
from reader.verify.content import examine
from reader.verify.walk import IN_FLIGHT, IN_FLIGHT_NEWEST

_NAMES = st.sampled_from(["lake", "request_id", "offset", "log", "ingested_at", "timing", "received_at", "x"])
LOG = "k-clearpane.calls-0-3"


@pytest.fixture
async def lake(maker: Any, spool_log: str) -> Any:
    """Two logs of four objects with three records each; one of the logs runs over two hours."""
    for log in (LOG, spool_log):
        for i in range(4):
            await maker.append(log, [maker.call(maker.now + timedelta(minutes=10 * i, seconds=j)) for j in range(3)])
    maker.log, maker.spool_log = LOG, spool_log
    return maker


def _manifest(members: bytes) -> Manifest:
    return Manifest(log="k-calls-0-0", start=0, end=9, count=1, nonce="", sha256=digest(members), previous_sha256=None)


def kinds(report: Report) -> list[str]:
    return [finding.kind for finding in report.findings]


def key(maker: Any, log: str, number: int) -> str:
    return [name for name in maker.objects if log in name][number]  # type: ignore[no-any-return]


async def test_a_whole_lake_is_clean(lake: Any) -> None:
    report = await verify(lake.store)
    assert (report.clean, report.logs, report.objects, report.records, report.findings) == (True, 2, 8, 24, [])
    assert report.bytes == sum(entry.size for entry in await lake.store.list("calls/"))
    assert (report.in_flight, report.ignored) == ([], [])


async def test_an_empty_lake_is_clean(maker: Any) -> None:
    report = await verify(maker.store)
    assert (report.clean, report.logs, report.objects, report.records) == (True, 0, 0, 0)


@pytest.mark.parametrize("where", ["manifest", "middle", "end"])
async def test_a_flipped_byte_names_the_object(lake: Any, where: str) -> None:
    damaged = key(lake, LOG, 1)
    data = bytearray(await lake.store.get(damaged))
    data[{"manifest": 20, "middle": len(data) // 2, "end": -3}[where]] ^= 0x10
    await lake.store.put(damaged, bytes(data))
    report = await verify(lake.store)
    assert not report.clean
    assert {finding.object for finding in report.findings if finding.kind in {"damaged", "digest", "manifest"}} == {damaged}
    assert {finding.log for finding in report.findings} == {LOG}


async def test_every_flipped_byte_is_found(maker: Any, spool_log: str) -> None:
    """Whatever byte it is, of the manifest or of a member."""
    place_, next_place = [await maker.append(spool_log, [maker.call() for _ in range(2)]) for _ in range(2)]
    whole, following = [await maker.store.get(where.key("calls")) for where in (place_, next_place)]
    after = examine(next_place, following)
    # The nonce means nothing to a reader: who wrote an object is not what it holds.
    manifest, _ = unseal(whole)
    nonce = whole.index(manifest.nonce.encode())

    def findings(data: bytes) -> list[Finding]:
        chain, content = Chain(spool_log, None), examine(place_, data)
        return [*content.findings, *chain.follow(place_, content.manifest), *chain.follow(next_place, after.manifest)]

    assert findings(whole) == []
    flipped = [whole[:i] + bytes([whole[i] ^ 0x01]) + whole[i + 1 :] for i in range(len(whole))]
    silent = [position for position, data in enumerate(flipped) if not findings(data)]
    assert [position for position in silent if not nonce <= position < nonce + len(manifest.nonce)] == []


@given(st.binary(max_size=300))
def test_any_bytes_are_only_findings(data: bytes) -> None:
    where = place("k-calls-0-0", 0, 0)
    assert examine(where, data).findings
    assert examine(where, seal(_manifest(data)) + data).manifest is not None


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.dictionaries(_NAMES, inner) | st.lists(inner)))
def test_any_json_line_is_only_findings(record: Any) -> None:
    line = member(json.dumps(record).encode() + b"\n")
    content = examine(place("k-calls-0-0", 0, 0), seal(_manifest(line)) + line)
    assert content.manifest is not None


async def test_an_object_cut_short(lake: Any) -> None:
    damaged = key(lake, LOG, 3)
    data = await lake.store.get(damaged)
    await lake.store.put(damaged, data[:-10])
    found = {finding.kind for finding in (await verify(lake.store)).findings}
    assert found >= {"digest", "damaged"}


async def test_a_deleted_object_in_the_middle_is_a_gap(lake: Any) -> None:
    gone = key(lake, LOG, 1)
    await lake.store.delete(gone)
    report = await verify(lake.store)
    assert sorted(kinds(report)) == ["gap", "index_orphan"]
    gap = next(finding for finding in report.findings if finding.kind == "gap")
    assert (gap.log, gap.object) == (LOG, key(lake, LOG, 2))
    assert "[3, 6)" in gap.detail
    assert gone in next(finding for finding in report.findings if finding.kind == "index_orphan").detail


async def test_a_deleted_first_object(lake: Any) -> None:
    for log in (LOG, lake.spool_log):
        await lake.store.delete(key(lake, log, 0))
        await lake.store.delete(key(lake, log, 0).replace("calls/", "index/").replace(".jsonl.gz", ".parquet"))
    report = await verify(lake.store)
    assert [(finding.kind, finding.log) for finding in report.findings] == [("genesis", lake.spool_log), ("genesis", LOG)]


@pytest.mark.parametrize(("genesis", "found"), [(0, []), (2, ["genesis"])])
async def test_the_head_says_where_a_partition_begins(lake: Any, genesis: int, found: list[str]) -> None:
    await lake.store.put(head_key(LOG), orjson.dumps({"log": LOG, "genesis": genesis, "end": 12}))
    assert kinds(await verify(lake.store)) == found


async def test_a_partition_may_begin_above_zero(maker: Any) -> None:
    """Kafka had forgotten what came before when the first consumer began."""
    maker.tails[LOG] = (500, None)
    await maker.append(LOG, [maker.call()])
    assert kinds(await verify(maker.store)) == []


async def test_a_head_knows_of_objects_that_are_gone(lake: Any) -> None:
    await lake.store.put(head_key(LOG), orjson.dumps({"log": LOG, "genesis": 0, "end": 12}))
    await lake.store.put(head_key("k-gone-0-0"), orjson.dumps({"log": "k-gone-0-0", "genesis": 7, "end": 9}))
    await lake.store.put(head_key("k-new-0-0"), orjson.dumps({"log": "k-new-0-0", "genesis": 7, "end": 7}))
    last = key(lake, LOG, 3)
    for name in (last, last.replace("calls/", "index/").replace(".jsonl.gz", ".parquet")):
        await lake.store.delete(name)
    report = await verify(lake.store)
    assert [(finding.kind, finding.log) for finding in report.findings] == [("tail", LOG), ("tail", "k-gone-0-0")]


async def test_a_head_that_cannot_be_read_is_no_finding(lake: Any) -> None:
    await lake.store.put(head_key(LOG), b"{")
    report = await verify(lake.store)
    assert (report.clean, report.ignored) == (True, [head_key(LOG)])


async def test_an_object_written_behind_another_one(maker: Any) -> None:
    await maker.append(LOG, [maker.call()])
    maker.tails[LOG] = (1, "0" * 64)
    where = await maker.append(LOG, [maker.call()])
    (finding,) = (await verify(maker.store)).findings
    assert (finding.kind, finding.object) == ("chain", where.key("calls"))


async def test_overlapping_objects(maker: Any) -> None:
    await maker.append(LOG, [maker.call() for _ in range(3)])
    maker.tails[LOG] = (1, None)
    where = await maker.append(LOG, [maker.call()])
    (finding,) = (await verify(maker.store)).findings
    assert (finding.kind, finding.object) == ("overlap", where.key("calls"))


async def test_one_object_at_two_hours_is_an_overlap(maker: Any) -> None:
    await maker.append(LOG, [maker.call()])
    maker.tails[LOG] = (0, None)
    await maker.append(LOG, [maker.call(maker.now + timedelta(hours=1))])
    assert kinds(await verify(maker.store)) == ["overlap"]


async def test_one_call_in_two_logs_is_a_duplicate(maker: Any, spool_log: str) -> None:
    row = maker.call()
    first = await maker.append(LOG, [maker.call(), dict(row)])
    second = await maker.append(spool_log, [dict(row)])
    (finding,) = (await verify(maker.store)).findings
    assert (finding.kind, finding.request_id) == ("duplicate", row["request_id"])
    assert {finding.object, finding.detail.split()[-1]} == {first.key("calls"), second.key("calls")}


async def test_records_without_an_id_are_no_duplicates(maker: Any) -> None:
    """Messages that could not be parsed."""
    await maker.append(LOG, [maker.call(request_id=None, received_at=None) for _ in range(2)])
    assert (await verify(maker.store)).clean


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"count": 5}, "5 records"),
        ({"log": "k-other-0-0"}, "its key says otherwise"),
        ({"start": 1}, "its key says otherwise"),
        ({"end": 2}, "ends at 2"),
        ({"end": 0}, "no offset"),
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"version": 9}, "version 9"),
        ({"count": "three"}, "other types"),
    ],
)
async def test_a_manifest_that_does_not_fit(maker: Any, changed: dict[str, Any], word: str) -> None:
    await maker.append(LOG, [maker.call() for _ in range(3)], changed=changed)
    assert any(word in finding.detail for finding in (await verify(maker.store)).findings)


async def test_a_key_of_another_hour(maker: Any, spool_log: str) -> None:
    """The hour is a function of the first record."""
    row = maker.call()
    where = place(spool_log, 0, int((maker.now - timedelta(hours=3)).timestamp() * 1000))
    _, data = maker.sealed(where, [row], None, None, {})
    await maker.store.put(where.key("calls"), data)
    found = (await verify(maker.store)).findings
    assert ("manifest", row["request_id"]) in [(finding.kind, finding.request_id) for finding in found]


async def test_a_missing_index(lake: Any) -> None:
    indexed = key(lake, LOG, 1)
    await lake.store.delete(indexed.replace("calls/", "index/").replace(".jsonl.gz", ".parquet"))
    (finding,) = (await verify(lake.store)).findings
    assert (finding.kind, finding.log, finding.object) == ("index_missing", LOG, indexed)


@pytest.mark.parametrize(
    ("age", "is_newest", "found"),
    [
        (timedelta(0), True, []),
        (IN_FLIGHT * 2, True, []),
        (IN_FLIGHT_NEWEST * 2, True, ["index_missing"]),
        (timedelta(0), False, []),
        (IN_FLIGHT * 2, False, ["index_missing"]),
    ],
)
async def test_an_index_that_is_still_to_come(maker: Any, age: timedelta, is_newest: bool, found: list[str]) -> None:
    at = datetime.now(UTC) - age
    where = await maker.append(LOG, [maker.call(at, ingested_at=at)], indexed=False)
    if not is_newest:
        await maker.append(LOG, [maker.call(at, ingested_at=at)])
    report = await verify(maker.store)
    assert kinds(report) == found
    assert report.in_flight == ([] if found else [where.key("calls")])


async def test_a_damaged_index(lake: Any) -> None:
    indexed = key(lake, LOG, 1).replace("calls/", "index/").replace(".jsonl.gz", ".parquet")
    await lake.store.put(indexed, b"PAR1....PAR1")
    (finding,) = (await verify(lake.store)).findings
    assert (finding.kind, finding.object) == ("index_damaged", indexed)


async def test_an_index_of_another_object(lake: Any) -> None:
    mine, other = (key(lake, LOG, i).replace("calls/", "index/").replace(".jsonl.gz", ".parquet") for i in (1, 2))
    await lake.store.put(mine, await lake.store.get(other))
    (finding,) = (await verify(lake.store)).findings
    assert (finding.kind, finding.object) == ("index_differs", mine)


async def test_an_index_that_lacks_a_row(maker: Any) -> None:
    shorter = await maker.append(LOG, [maker.call()])
    short = await maker.store.get(shorter.key("index"))
    longer = await maker.append(LOG, [maker.call() for _ in range(2)])
    await maker.store.put(longer.key("index"), short)
    (finding,) = (await verify(maker.store)).findings
    assert (finding.kind, finding.detail) == ("index_differs", "the index has 1 rows, the object 2 records")


async def test_objects_of_others_are_ignored_and_listed(lake: Any) -> None:
    foreign = ["calls/notes.txt", "calls/dt=2025-11-21/hour=10/copy.jsonl.gz", "index/dt=2025-11-21/x.parquet", "heads/README"]
    for name in foreign:
        await lake.store.put(name, b"not ours")
    report = await verify(lake.store)
    assert report.clean
    assert sorted(report.ignored) == sorted(foreign)
    assert report.ignored_total == len(foreign)


async def test_objects_that_come_while_it_looks_are_no_findings(lake: Any) -> None:
    """A listing that misses an object and holds a later one, as one of a lake that is written to can."""

    class Growing(Store):
        def __init__(self) -> None:
            self._real, self.hidden = lake.store, {key(lake, LOG, 2)}

        async def level(self, prefix: str) -> tuple[list[str], list[Entry]]:
            return await self._real.level(prefix)  # type: ignore[no-any-return]

        async def list(self, prefix: str, *, after: str | None = None) -> list[Entry]:
            found = [entry for entry in await self._real.list(prefix) if entry.key not in self.hidden]
            if prefix.startswith("calls/"):
                self.hidden = set()
                await lake.append(LOG, [lake.call(lake.now + timedelta(hours=5))])
            return found

        async def get(self, name: str) -> bytes:
            return await self._real.get(name)  # type: ignore[no-any-return]

        async def size(self, name: str) -> int | None:
            return await self._real.size(name)  # type: ignore[no-any-return]

    report = await verify(Growing())
    assert report.findings == []
    assert report.objects == 8


async def test_the_report_for_people_names_what_is_wrong(lake: Any) -> None:
    await lake.store.delete(key(lake, LOG, 1))
    lines = (await verify(lake.store)).lines("the-lake", 1)
    assert lines[0].startswith("the-lake: 2 logs, 7 objects, 21 records, ")
    assert any("gap: no object covers [3, 6)" in line for line in lines)
    assert lines[-1] == "2 findings"
    assert any("1 more" in line for line in lines)


@pytest.mark.s3
async def test_verify_on_s3(s3_lake: str, maker: Any, spool_log: str) -> None:
    maker.store = Store.open(s3_lake)
    places = [await maker.append(spool_log, [maker.call(maker.now + timedelta(hours=i))]) for i in range(3)]
    await maker.store.put("calls/notes.txt", b"not ours")
    report = await verify(maker.store)
    assert (report.clean, report.objects, report.ignored) == (True, 3, ["calls/notes.txt"])
    await maker.store.delete(places[1].key("calls"))
    assert sorted(kinds(await verify(maker.store))) == ["gap", "index_orphan"]
