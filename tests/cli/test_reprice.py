"""Repricing: the new cost beside the old, `calls/` untouched, and the same however often it is broken off."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from clearpane.cli import _main, revision
from clearpane.cli.revision import Revised, Unsettled, revise
from clearpane.contract.identifiers import Log, new_request_id
from clearpane.contract.members import NotAnObject
from clearpane.contract.records import Row
from clearpane.store import Store, StoreUnavailable
from consumer.derive import PriceBook, derive, row
from consumer.derive.overlay import parse
from consumer.derive.repricing import reprice
from consumer.lake.chain import Chain, Lake
from consumer.lake.draft import Derivation
from consumer.lake.messages import Message, decode
from consumer.lake.pending import Limits, Pending
from reader import rows
from reader.filter import Filter
from reader.query import query
from reader.verify import verify

BOOK = PriceBook()
HALF = b'[[price]]\nmodel = "gpt-4o-mini*"\ndiscount_percent = 50\n'
HALVED = PriceBook(parse(HALF, "prices.toml", BOOK.knows))
LATER = datetime.now(UTC) + timedelta(hours=1)
RECORDED, NEW = Decimal("0.00045"), Decimal("0.000225")


def envelope(user: str, usage: dict[str, int] | None) -> dict[str, Any]:
    """1,000 input tokens at 0.15 and 500 output tokens at 0.6 a million: 0.00045."""
    answer = {"model": "gpt-4o-mini-2024-07-18", "choices": [{"index": 0, "message": {"content": "Far."}, "finish_reason": "stop"}]}
    return {
        "schema": "call.v1",
        "event": "completed",
        "request_id": new_request_id(),
        "attempt": 1,
        "caller": {"user_id": user, "properties": {"team": "blue"}},
        "target": {"provider": "openai", "upstream": "openai", "operation": "chat", "url": None},
        "request": {"method": "POST", "path": "/v1/chat/completions", "body": '{"model":"gpt-4o-mini"}', "body_encoding": "utf-8"},
        "response": {
            "status": 200 if usage else 500,
            "end": "complete",
            "body": orjson.dumps({**answer, "usage": usage} if usage else {"error": {"code": "x"}}).decode(),
            "body_encoding": "utf-8",
            "headers": {},
        },
        "timing": {"received_at": datetime.now(UTC).isoformat(timespec="microseconds"), "duration_ms": 5.0},
    }


USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}


@pytest.fixture
async def store(tmp_path: Path) -> Store:
    return await filled(str(tmp_path / "lake"))


async def filled(location: str) -> Store:
    """Three objects: nine calls of alice, eight of bob, one that failed, and a message that is no envelope."""
    store = Store.open(location)
    calls = [envelope("alice" if n % 2 == 0 else "bob", USAGE) for n in range(17)] + [envelope("alice", None)]
    derivation = Derivation(derive=lambda found: derive(found, BOOK), row=row)
    lake = Lake(store=store, derivation=derivation, limits=Limits(records_max=7, bytes_max=1 << 20))
    chain = await Chain.open(lake, Log.of_partition("clearpane.calls", 2).name)
    pending = Pending(end=0)
    for offset, value in enumerate([*map(orjson.dumps, calls), b"poison"]):
        pending.add(offset, decode(Message(offset=offset, timestamp_ms=int(datetime.now(UTC).timestamp() * 1000), value=value)))
    await chain.append(pending)
    return store


async def reprice_with(store: Store, book: PriceBook, wanted: Filter = Filter(), *, apply: bool = True) -> list[Revised]:  # noqa: B008
    found: list[Revised] = []
    async for each in revise(store, wanted, lambda record: reprice(record, book), now=LATER, apply=apply):
        assert not isinstance(each, Unsettled)
        found += each
    return found


async def everything(store: Store, prefix: str) -> dict[str, bytes]:
    return {entry.key: await store.get(entry.key) for entry in await store.list(prefix)}


async def shown(store: Store) -> list[Row]:
    return sorted([row async for row in rows.rows(store, Filter())], key=lambda row: row["offset"])


def costs(row: Row) -> tuple[Any, ...]:
    return (row["cost_total"], row["cost_source"], row["price_version"], row["cost_recorded"], row["price_version_recorded"])


AS_RECORDED = (RECORDED, "book", BOOK.version, None, None)
AS_REPRICED = (NEW, "overlay", HALVED.version, RECORDED, BOOK.version)
UNKNOWN = (None, "unknown", None, None, None)
POISON = (None, None, None, None, None)


async def test_a_damaged_object_is_named(store: Store) -> None:
    key = (await store.list("calls/"))[1].key
    await store.put(key, (await store.get(key))[:-40])
    with pytest.raises(NotAnObject, match=f"{key} is damaged"):
        await reprice_with(store, HALVED)


async def test_a_dry_run_tells_both_costs_and_writes_nothing(store: Store) -> None:
    before = await everything(store, "")
    found = await reprice_with(store, HALVED, apply=False)
    assert [(r.before["cost_total"], r.after["cost_total"]) for r in found if r.changed] == [(RECORDED, NEW)] * 17
    assert len(found) == 19
    assert await everything(store, "") == before


async def test_the_index_has_the_new_cost_beside_the_old_and_calls_is_untouched(store: Store) -> None:
    await new_beside_old(store)


@pytest.mark.s3
async def test_the_same_on_s3(s3_lake: str) -> None:
    await new_beside_old(await filled(s3_lake))


async def new_beside_old(store: Store) -> None:
    calls, before = await everything(store, "calls/"), await shown(store)
    await reprice_with(store, HALVED)
    after = await shown(store)
    assert [costs(row) for row in after] == [AS_REPRICED] * 17 + [UNKNOWN, POISON]
    assert [row["repriced_at"] for row in after] == [LATER] * 17 + [None, None]
    priced = {name for name in before[0] if name.startswith(("cost_", "price_", "repriced_"))}
    assert [{n: v for n, v in row.items() if n not in priced} for row in after] == [
        {n: v for n, v in row.items() if n not in priced} for row in before
    ]
    assert await everything(store, "calls/") == calls
    assert (await verify(store)).findings == []
    with query(store, "select sum(cost_total), sum(cost_recorded), sum(cost_total - cost_recorded) from calls") as answer:
        assert list(answer.rows) == [(17 * NEW, 17 * RECORDED, 17 * (NEW - RECORDED))]


async def test_twice_is_once_and_back_is_as_it_was(store: Store) -> None:
    before = await everything(store, "index/")
    await reprice_with(store, HALVED)
    once = await everything(store, "index/")
    assert not any(revised.changed for revised in await reprice_with(store, HALVED))
    assert await everything(store, "index/") == once
    assert once != before
    await reprice_with(store, BOOK)
    assert [costs(row) for row in await shown(store)] == [AS_RECORDED] * 17 + [UNKNOWN, POISON]
    assert {row["repriced_at"] for row in await shown(store)} == {None}


async def test_only_what_the_filter_asks_for(store: Store) -> None:
    found = await reprice_with(store, HALVED, Filter(user="alice"))
    assert len(found) == 10
    assert {row["user_id"]: costs(row) for row in await shown(store) if row["total_tokens"]} == {"alice": AS_REPRICED, "bob": AS_RECORDED}
    nothing = await reprice_with(store, HALVED, Filter(since=datetime.now(UTC) + timedelta(days=1)))
    assert nothing == []


class Failing:
    """A store whose second PUT does not come through."""

    def __init__(self, store: Store) -> None:
        self._store, self.left = store, 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def put(self, key: str, data: bytes) -> None:
        if self.left == 0:
            raise StoreUnavailable("gone")
        self.left -= 1
        await self._store.put(key, data)


async def test_broken_off_it_is_begun_again_and_ends_the_same(store: Store) -> None:
    with pytest.raises(StoreUnavailable):
        await reprice_with(Failing(store), HALVED)  # type: ignore[arg-type]
    assert [costs(row) for row in (await shown(store))[:8]] == [AS_REPRICED] * 7 + [AS_RECORDED]
    assert (await verify(store)).findings == []
    assert sum(revised.changed for revised in await reprice_with(store, HALVED)) == 10
    assert [costs(row) for row in await shown(store)] == [AS_REPRICED] * 17 + [UNKNOWN, POISON]


async def test_an_object_that_is_still_being_written_is_passed_over(store: Store) -> None:
    found = [each async for each in revise(store, Filter(), lambda record: reprice(record, HALVED), now=datetime.now(UTC), apply=True)]
    assert [each.rows for each in found if isinstance(each, Unsettled)] == [7, 7, 5]
    assert [costs(row) for row in await shown(store)] == [AS_RECORDED] * 17 + [UNKNOWN, POISON]


async def test_an_object_that_is_gone_is_passed_over(store: Store) -> None:
    await store.delete(next(iter(await everything(store, "calls/"))))
    found = [each async for each in revise(store, Filter(), lambda record: reprice(record, HALVED), now=LATER, apply=True)]
    assert [type(each) for each in found] == [Unsettled, list, list]


@pytest.fixture
def command(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setattr(revision, "SETTLED", timedelta(0))
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "prices.toml").write_bytes(HALF)

    def run(*words: str, lake: str = str(tmp_path / "lake"), overlay: str = str(tmp_path / "prices.toml")) -> tuple[int, str, str]:
        code = _main([words[0], "--lake", lake, *words[1:], *(["--price-overlay", overlay] if words[0] == "reprice" else [])])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_the_command_and_what_readers_show(command: Any) -> None:
    code, out, _ = command("reprice", "--from", "1h")
    assert code == 0
    assert [line.split() for line in out.splitlines() if "gpt-4o-mini" in line] == [
        ["openai", "gpt-4o-mini", "1", "0", "?", "?", "1", "1"],
        ["openai", "gpt-4o-mini-2024-07-18", "17", "17", "$0.00765", "$0.00382", "0", "0"],
    ]
    assert f"17 of 18 calls change, by {HALVED.version}; nothing was written: --apply does" in out
    code, out, err = command("reprice", "--from", "1h", "--user", "bob", "--apply", "--json")
    lines = [orjson.loads(line) for line in out.splitlines()]
    assert (code, len(lines)) == (0, 8)
    assert (lines[0]["cost_total_before"], lines[0]["cost_total"], lines[0]["cost_recorded"]) == ("0.00045", "0.000225", "0.00045")
    assert "8 of 8 calls change" in err
    assert "; written" in err
    assert command("reprice", "--from", "1h", "--user", "bob", "--apply")[1].endswith("; nothing to write\n")
    name = lines[0]["request_id"]
    _, out, _ = command("show", name)
    assert "$0.00045" in out
    assert "now $0.000225 · priced by your overlay" in out
    _, out, _ = command("calls", "--json", "--user", "bob", "--request-id", name)
    row = orjson.loads(out)
    assert (row["cost_total"], row["cost_recorded"], row["price_version_recorded"]) == ("0.000225", "0.00045", BOOK.version)


def test_what_cannot_be_done_is_said(command: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[[price]]\nmodel = 1\n[[price]]\n")
    code, _, err = command("reprice", "--from", "1h", overlay=str(tmp_path / "bad.toml"))
    assert code == 2
    assert len([line for line in err.splitlines() if "price " in line]) == 5
    assert command("reprice", "--from", "soon")[0] == 2
    assert command("reprice", "--from", "1h", lake=str(tmp_path / "none"))[0] == 2
    code, out, _ = command("reprice", "--from", "1h", "--user", "nobody")
    assert (code, out) == (0, "no calls recorded that match\n")
