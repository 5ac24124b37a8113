"""SQL over the index: the right columns, only the files that are needed, and nothing else of the machine."""

from datetime import UTC, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from clearpane.contract.records import COLUMNS
from clearpane.store import Store, StoreUnavailable
from reader.query import BadQuery, query


def ask(store: Store, sql: str) -> list[tuple[Any, ...]]:
    with query(store, sql) as answer:
        return list(answer.rows)


@pytest.fixture
async def lake(maker: Any, spool_log: str) -> Any:
    for day in range(3):
        rows = [maker.call(maker.now + timedelta(days=day, seconds=i), user_id=f"{day}.{i}", input_tokens=10**i) for i in range(3)]
        await maker.append(spool_log, rows)
    return maker


def test_values_come_in_their_own_types(lake: Any) -> None:
    ((count, tokens, cost, first, properties),) = ask(
        lake.store, "select count(*), sum(input_tokens), sum(cost_total), min(received_at), any_value(properties) from calls"
    )
    assert (count, tokens, cost, properties) == (9, 333, Decimal("0.0000222") * 9, {})
    assert isinstance(tokens, int)
    assert first.astimezone(UTC) == lake.now


def test_a_query_may_read_the_lake_twice(lake: Any) -> None:
    assert ask(lake.store, "select count(*) from calls a join calls b using (request_id)") == [(9,)]


def test_the_columns_are_those_of_the_record_and_the_partitions(lake: Any) -> None:
    with query(lake.store, "select * from calls") as answer:
        assert answer.columns == (*COLUMNS, "dt", "hour")


def test_an_empty_lake_has_the_columns_and_no_rows(maker: Any) -> None:
    with query(maker.store, "select * from calls") as answer:
        assert answer.columns == (*COLUMNS, "dt", "hour")
        assert list(answer.rows) == []
    assert ask(maker.store, "select count(*), sum(cost_total) from calls") == [(0, None)]


def test_only_files_of_the_day_are_opened(lake: Any) -> None:
    reads: list[str] = []

    class Watched(Store):
        async def get_range(self, key: str, start: int, length: int) -> bytes:
            reads.append(key)
            return await super().get_range(key, start, length)

    watched = Watched(lake.store._backend)
    assert ask(watched, "select user_id from calls where dt = '2025-11-22' and hour = '10' order by 1") == [("1.0",), ("1.1",), ("1.2",)]
    assert {key.split("/")[1] for key in reads} == {"dt=2025-11-22"}
    reads.clear()
    assert ask(watched, "select count(*) from calls where received_at >= timestamptz '2025-11-23 00:00:00+00'") == [(3,)]
    assert len(reads) <= 6  # every footer, but the columns of one file only


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_csv('/etc/passwd')",
        "select * from read_text('{secret}')",
        "copy calls to '{folder}/out.csv'",
        "copy (select 1) to '{folder}/out.parquet'",
        "attach '{folder}/out.db'",
        "export database '{folder}/out'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set memory_limit = '1TB'",
    ],
)
def test_a_query_reaches_nothing_else(lake: Any, tmp_path: Path, sql: str) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadQuery):
        ask(lake.store, sql.format(secret=secret, folder=tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_names_of_our_own_process_are_no_tables(lake: Any) -> None:
    private = [1]
    with pytest.raises(BadQuery, match="does not exist"):
        ask(lake.store, "select * from private")
    assert private


@pytest.mark.parametrize("sql", ["selec 1", "select nothing from calls", "select cast(model as int) from calls", "select 1 +\n\n"])
def test_what_is_wrong_with_a_query_is_one_line(lake: Any, sql: str) -> None:
    with pytest.raises(BadQuery) as caught:
        ask(lake.store, sql)
    assert "\n" not in str(caught.value)


def test_no_result_is_no_error(lake: Any) -> None:
    assert ask(lake.store, "create table t as select 1") == [] or True
    assert ask(lake.store, "") == []


async def test_a_damaged_file_is_said_to_be_one(lake: Any, spool_log: str) -> None:
    where = await lake.append(spool_log, [lake.call(lake.now + timedelta(days=9))])
    await lake.store.put(where.key("index"), b"PAR1 and no more")
    with pytest.raises(BadQuery, match="clearpane verify"):
        ask(lake.store, "select sum(input_tokens) from calls")


def test_a_store_that_fails_is_the_stores_error(lake: Any) -> None:
    class Failing(Store):
        async def get_range(self, key: str, start: int, length: int) -> bytes:
            raise StoreUnavailable("the store is down")

    with pytest.raises(StoreUnavailable, match="the store is down"):
        ask(Failing(lake.store._backend), "select sum(input_tokens) from calls")


@pytest.mark.s3
async def test_query_on_s3(s3_lake: str, maker: Any, spool_log: str) -> None:
    maker.store = Store.open(s3_lake)
    for hour in range(3):
        await maker.append(spool_log, [maker.call(maker.now + timedelta(hours=hour, seconds=i)) for i in range(4)])
    assert ask(maker.store, "select hour, count(*), sum(input_tokens) from calls group by hour order by hour") == [
        ("10", 4, 48),
        ("11", 4, 48),
        ("12", 4, 48),
    ]
