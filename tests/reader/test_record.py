"""One record by its id: found wherever it stands, opened by one range read."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearpane.contract.identifiers import born_at, new_request_id
from clearpane.store import Store
from reader.record import BadId, born_between, find, id_prefix, open_record


async def test_a_record_is_opened_by_one_range_read(maker: Any, spool_log: str) -> None:
    rows = [maker.call(user_id=str(i)) for i in range(5)]
    await maker.append(spool_log, rows)
    reads = []

    class Watched(Store):
        async def get_range(self, key: str, start: int, length: int) -> bytes:
            reads.append((key, length))
            return await super().get_range(key, start, length)

    (row,) = await find(maker.store, rows[3]["request_id"])
    line = await open_record(Watched(maker.store._backend), row)
    assert line.endswith(b"}\n")
    assert orjson.loads(line)["caller"]["user_id"] == "3"
    assert reads == [(row["object"], row["object_length"])]


@pytest.mark.parametrize("hours", [0, 1, 50, 24 * 30])
async def test_a_call_is_found_however_late_it_reached_the_lake(maker: Any, hours: int) -> None:
    """It waited in a spool: its object stands in a later hour."""
    late = maker.call(maker.now, user_id="late")
    await maker.append("k-calls-0-0", [maker.call(maker.now + timedelta(hours=hours)), late])
    (row,) = await find(maker.store, late["request_id"])
    assert row["user_id"] == "late"


async def test_a_call_of_the_next_hour_by_another_clock_is_found(maker: Any) -> None:
    ahead = maker.call(maker.now + timedelta(hours=1))
    await maker.append("k-calls-0-0", [maker.call(maker.now), ahead])
    assert len(await find(maker.store, ahead["request_id"])) == 1


async def test_a_beginning_is_enough_if_it_is_only_one(maker: Any, spool_log: str) -> None:
    rows = [maker.call(maker.now + timedelta(milliseconds=10 * i)) for i in range(3)]
    await maker.append(spool_log, rows)
    await maker.append("k-calls-0-0", [maker.call(maker.now + timedelta(hours=2))])
    one = rows[1]["request_id"]
    for written in (one, one.upper(), one.replace("-", ""), f" {one[:18]} ", one[:13], one[:14], one[:16].replace("-", "")):
        assert [row["request_id"] for row in await find(maker.store, id_prefix(written))] == [one]
    assert [row["request_id"] for row in await find(maker.store, id_prefix(one[:8]))] == [row["request_id"] for row in rows]


async def test_an_id_that_no_call_has(maker: Any, spool_log: str) -> None:
    await maker.append(spool_log, [maker.call()])
    assert await find(maker.store, id_prefix(maker.request_id(maker.now))) == []
    assert await find(maker.store, id_prefix(maker.request_id(maker.now - timedelta(days=400)))) == []


@pytest.mark.parametrize("text", ["", "019", "0199999", "hello-wo", "019aa0b1-2c3d-4abc", "0" * 33, "*" * 10, "ffffffffffff"])
def test_what_cannot_be_an_id(text: str) -> None:
    with pytest.raises(BadId):
        born_between(id_prefix(text))


@given(st.text(max_size=40))
def test_any_text_is_an_id_or_refused(text: str) -> None:
    try:
        first, last = born_between(id_prefix(text))
    except BadId:
        return
    assert first <= last


@given(st.integers(8, 36))
def test_every_beginning_of_an_id_bounds_its_birth(length: int) -> None:
    whole = new_request_id()
    prefix = id_prefix(whole[: max(length, 9)])
    first, last = born_between(prefix)
    assert whole.startswith(prefix)
    assert first <= born_at(whole) <= last
    assert last - first <= timedelta(seconds=66)
    assert abs(datetime.now(UTC) - first) < timedelta(minutes=3)


@pytest.mark.s3
async def test_find_and_open_on_s3(s3_lake: str, maker: Any, spool_log: str) -> None:
    maker.store = Store.open(s3_lake)
    rows = [maker.call() for _ in range(3)]
    await maker.append(spool_log, rows)
    (row,) = await find(maker.store, rows[1]["request_id"])
    assert orjson.loads(await open_record(maker.store, row))["request_id"] == rows[1]["request_id"]
