"""Rows of a lake: all, filtered, the newest, and those that come while one looks."""

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest

from clearpane.contract.records import COLUMNS
from clearpane.store import Store
from reader import rows
from reader.filter import Filter
from reader.lake import DamagedIndex
from reader.lines import json_line


async def everything(store: Store, **wanted: Any) -> list[str]:
    return [row["user_id"] async for row in rows.rows(store, Filter(**wanted))]


async def named(maker: Any, spool_log: str, **columns: list[Any]) -> None:
    """One call for each value; the user id says which."""
    ((name, values),) = columns.items()
    calls = [maker.call(maker.now + timedelta(seconds=i), **{name: value, "user_id": str(value)}) for i, value in enumerate(values)]
    await maker.append(spool_log, calls)


async def test_rows_come_by_time_across_logs_and_hours(maker: Any, spool_log: str) -> None:
    at = maker.now
    await maker.append("k-calls-0-1", [maker.call(at + timedelta(seconds=i), user_id=f"b{i}") for i in (0, 2)])
    await maker.append(spool_log, [maker.call(at + timedelta(seconds=i), user_id=f"b{i}") for i in (1, 3)])
    await maker.append("k-calls-0-0", [maker.call(at - timedelta(hours=30), user_id="a")])
    await maker.append("k-calls-0-0", [maker.call(at + timedelta(hours=1), user_id="c")])
    assert await everything(maker.store) == ["a", "b0", "b1", "b2", "b3", "c"]


async def test_an_empty_lake_has_no_rows(maker: Any) -> None:
    assert await everything(maker.store) == []
    assert await rows.newest(maker.store, Filter(), 5) == []


async def test_objects_of_others_are_passed_over(maker: Any, spool_log: str) -> None:
    where = await maker.append(spool_log, [maker.call(user_id="a")])
    for key in ("index/dt=2025-11-21/hour=10/notes.txt", "index/other/x.parquet", "index/README", "index/dt=never/hour=10/a.parquet"):
        await maker.store.put(key, b"not ours")
    assert where.key("index").startswith("index/dt=2025-11-21/hour=10/")
    assert await everything(maker.store) == ["a"]


async def test_a_damaged_index_file_is_named(maker: Any, spool_log: str) -> None:
    where = await maker.append(spool_log, [maker.call()])
    await maker.store.put(where.key("index"), b"PAR1 but no more")
    with pytest.raises(DamagedIndex, match=where.key("index")):
        await everything(maker.store)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("200", ["200"]),
        ("4xx", ["404", "429"]),
        ("5xx", ["500"]),
        ("9xx", ["999"]),
        ("600", ["600"]),
        ("error", ["404", "429", "500", "600", "999", "None"]),
        ("2xx", ["200", "299"]),
    ],
)
async def test_status(maker: Any, spool_log: str, wanted: str, found: list[str]) -> None:
    await named(maker, spool_log, status=[200, 299, 302, 404, 429, 500, 600, 999, None])
    assert await everything(maker.store, status=wanted) == found


async def test_an_answer_that_broke_is_an_error_whatever_its_status(maker: Any, spool_log: str) -> None:
    await named(
        maker, spool_log, end=["complete", "client_disconnected", "upstream_error", "timeout", "shutdown", "interrupted", "rejected"]
    )
    assert await everything(maker.store, status="error") == ["upstream_error", "timeout", "shutdown", "interrupted", "rejected"]
    assert await everything(maker.store, end="client_disconnected") == ["client_disconnected"]


@pytest.mark.parametrize(
    ("filter_name", "column"), [("session", "session_id"), ("provider", "provider"), ("model", "model"), ("model", "model_requested")]
)
async def test_texts_are_compared_whole(maker: Any, spool_log: str, filter_name: str, column: str) -> None:
    await named(maker, spool_log, **{column: ["one", "one-two", None, "One"]})
    assert await everything(maker.store, **{filter_name: "one"}) == ["one"]


async def test_properties_must_all_hold(maker: Any, spool_log: str) -> None:
    calls = [{"a": "1"}, {"a": "1", "b": "2"}, {"b": "2"}, {}, {"a": "2", "b": "2"}]
    await maker.append(spool_log, [maker.call(properties=value, user_id=str(i)) for i, value in enumerate(calls)])
    assert await everything(maker.store, properties={"a": "1"}) == ["0", "1"]
    assert await everything(maker.store, properties={"a": "1", "b": "2"}) == ["1"]


async def test_unknown_cost_is_less_than_no_cost(maker: Any, spool_log: str) -> None:
    await named(maker, spool_log, cost_total=[Decimal(0), None, Decimal("0.5"), Decimal("0.499999999999999999")])
    assert await everything(maker.store, cost_min=Decimal(0)) == ["0", "0.5", "0.499999999999999999"]
    assert await everything(maker.store, cost_min=Decimal("0.5")) == ["0.5"]


async def test_both_ids_find_a_call(maker: Any, spool_log: str) -> None:
    one, other = maker.call(user_id="a", client_request_id="mine"), maker.call(user_id="b")
    await maker.append(spool_log, [one, other])
    assert await everything(maker.store, request_id="mine") == ["a"]
    assert await everything(maker.store, request_id=other["request_id"]) == ["b"]


async def test_since_is_in_and_until_is_out(maker: Any, spool_log: str) -> None:
    at = maker.now
    await maker.append(spool_log, [maker.call(at + timedelta(minutes=i), user_id=str(i)) for i in range(5)])
    assert await everything(maker.store, since=at + timedelta(minutes=1), until=at + timedelta(minutes=3)) == ["1", "2"]


async def test_a_window_of_time_finds_records_that_stand_in_another_hour(maker: Any, spool_log: str) -> None:
    """An object's hour is its first record's: others of it were received long before, or by a clock that is ahead."""
    at = maker.now
    await maker.append(spool_log, [maker.call(at + timedelta(hours=i), user_id=str(i)) for i in (0, -100, 1)])
    assert await everything(maker.store, since=at + timedelta(hours=1)) == ["1"]
    assert await everything(maker.store, until=at - timedelta(hours=2)) == ["-100"]


async def test_a_window_of_time_leaves_far_hours_unread(maker: Any) -> None:
    for days in (0, 20):
        where = await maker.append("k-calls-0-0", [maker.call(maker.now + timedelta(days=days), user_id=str(days))])
    await maker.store.put(where.key("index"), b"damaged: reading it would raise")
    assert await everything(maker.store, until=maker.now + timedelta(hours=1)) == ["0"]


async def test_the_newest_stand_last_and_are_no_more_than_asked_for(maker: Any, spool_log: str) -> None:
    for hour in range(6):
        await maker.append(spool_log, [maker.call(maker.now + timedelta(hours=hour, seconds=i), user_id=f"{hour}.{i}") for i in range(3)])
    found = await rows.newest(maker.store, Filter(), 4)
    assert [row["user_id"] for row in found] == ["4.2", "5.0", "5.1", "5.2"]


async def test_newest_reads_no_further_than_it_must(maker: Any, spool_log: str) -> None:
    places = [await maker.append(spool_log, [maker.call(maker.now + timedelta(hours=hour), user_id=str(hour))]) for hour in range(4)]
    await maker.store.put(places[0].key("index"), b"damaged: reading it would raise")
    assert [row["user_id"] for row in await rows.newest(maker.store, Filter(), 1)] == ["3"]


async def test_an_hour_larger_than_the_sort_comes_whole(maker: Any, spool_log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "ROWS_SORTED_MAX", 4)
    for i in range(10):
        await maker.append(spool_log, [maker.call(maker.now + timedelta(seconds=i, milliseconds=j), user_id=f"{i}.{j}") for j in (1, 0)])
    found = await everything(maker.store)
    assert sorted(found) == found
    assert len(found) == 20


async def test_follow_shows_each_row_once(maker: Any, spool_log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "POLL_S", 0.02)
    monkeypatch.setattr(rows, "datetime", _Clock([maker.now + timedelta(minutes=10 * i) for i in range(40)]))
    await maker.append(spool_log, [maker.call(maker.now - timedelta(minutes=50), user_id="before")])
    batches = rows.follow(maker.store, Filter(), now=maker.now)
    seen = [[row["user_id"] for row in await anext(batches)]]
    for i in range(3):
        await maker.append(spool_log, [maker.call(maker.now + timedelta(minutes=30 * i), user_id=str(i))])
        seen.append([row["user_id"] for row in await asyncio.wait_for(anext(batches), 10)])
    assert seen == [["before"], ["0"], ["1"], ["2"]]
    await batches.aclose()


class _Clock:
    def __init__(self, moments: list[datetime]) -> None:
        self._moments = moments

    def now(self, zone: Any) -> datetime:
        assert zone
        return self._moments.pop(0) if len(self._moments) > 1 else self._moments[0]


async def test_a_json_line_has_exactly_the_columns(maker: Any, spool_log: str) -> None:
    await maker.append(
        spool_log, [maker.call(properties={"team": "blue"}, cost_total=Decimal("1E-18"), cost_input=Decimal(0), first_token_ms=None)]
    )
    (row,) = [row async for row in rows.rows(maker.store, Filter())]
    line = json_line(row)
    found = orjson.loads(line)
    assert list(found) == list(COLUMNS)
    assert line.endswith(b"}\n")
    assert found["received_at"] == "2025-11-21T10:30:15.123456Z"
    assert (found["cost_total"], found["cost_input"], found["first_token_ms"]) == ("0.000000000000000001", "0", None)
    assert found["properties"] == {"team": "blue"}
    assert (found["status"], found["streamed"], found["duration_ms"]) == (200, False, 812.5)


@pytest.mark.s3
async def test_rows_on_s3(s3_lake: str, maker: Any, spool_log: str) -> None:
    maker.store = Store.open(s3_lake)
    for hour in range(3):
        await maker.append(spool_log, [maker.call(maker.now + timedelta(hours=hour, seconds=i), user_id=f"{hour}.{i}") for i in range(2)])
    assert await everything(maker.store) == ["0.0", "0.1", "1.0", "1.1", "2.0", "2.1"]
    assert [row["user_id"] for row in await rows.newest(maker.store, Filter(), 1)] == ["2.1"]
