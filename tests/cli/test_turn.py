"""One command at a time changes the index or deletes: the turn is taken, told, given back, and kept where a change is in doubt."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from clearpane.cli import _main
from clearpane.cli.turn import KEY, Taken, turn
from clearpane.store import NotFound, Store, StoreDenied, StoreUnavailable
from reader.verify import verify
from tests.cli.lake import World


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "lake"))


async def stands(store: Store) -> bool:
    return await store.size(KEY) is not None


async def test_only_one_has_it_and_gives_it_back(store: Store) -> None:
    await one_at_a_time(store)


@pytest.mark.s3
async def test_only_one_has_it_on_s3(s3_lake: str) -> None:
    await one_at_a_time(Store.open(s3_lake))


async def one_at_a_time(store: Store) -> None:
    had: list[int] = []

    async def wants(number: int) -> None:
        async with turn(store, f"number {number}", apply=True):
            had.append(number)
            await asyncio.sleep(0.5)

    found = await asyncio.gather(*map(wants, range(6)), return_exceptions=True)
    (first,) = had
    refused = [one for one in found if isinstance(one, Taken)]
    assert len(refused) == 5
    assert all(f"`clearpane number {first}` has the lake since" in str(one) and f"delete {KEY}" in str(one) for one in refused)
    assert not await stands(store)
    await wants(7)
    assert had == [first, 7]


async def test_a_look_takes_none(store: Store) -> None:
    async with turn(store, "one", apply=True), turn(store, "two", apply=False) as same:
        assert same is store


@pytest.mark.parametrize(
    ("error", "kept"), [(StoreUnavailable, True), (asyncio.CancelledError, True), (StoreDenied, False), (NotFound, False)]
)
@pytest.mark.parametrize("change", ["put", "create", "delete"])
async def test_it_is_kept_only_while_a_change_is_in_doubt(store: Store, change: str, error: type[BaseException], kept: bool) -> None:
    class Breaking(Store):
        async def put(self, key: str, data: bytes) -> None:
            raise error

        async def create(self, key: str, data: bytes) -> None:
            await (self.put(key, data) if key != KEY else super().create(key, data))

        async def delete(self, key: str) -> None:
            await (self.put(key, b"") if key != KEY else super().delete(key))

    with pytest.raises(error):
        async with turn(Breaking(store._backend), "one", apply=True) as mine:
            await getattr(mine, change)("index/x", *([] if change == "delete" else [b""]))
    assert await stands(store) == kept


async def test_what_only_looks_and_fails_gives_it_back(store: Store) -> None:
    with pytest.raises(StoreUnavailable):
        async with turn(store, "one", apply=True):
            raise StoreUnavailable("a listing")
    assert not await stands(store)


async def test_a_turn_that_another_took_since_is_not_given_back(store: Store) -> None:
    async with turn(store, "one", apply=True):
        await store.put(KEY, b'{"command": "two", "nonce": "other"}')
    assert await stands(store)


@pytest.mark.parametrize(
    "held", [b'{"command": "index compact", "host": "a", "pid": 7, "since": "2026-11-21T10:00:00Z", "nonce": "n"}', b"?"]
)
async def test_the_commands_are_refused(tmp_path: Path, store: Store, held: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    world = await World(store).fill()
    before = await world.files()
    await store.put(KEY, held)
    commands: list[list[str]] = [["index", "rebuild"], ["index", "compact"], ["reprice", "--from", "60d", "--apply"],
                                 ["retention", "--days", "29", "--apply"]]  # fmt: skip
    for command in commands:
        assert await asyncio.to_thread(_main, [*command, "--lake", str(tmp_path / "lake")]) == 1
        error: Any = capsys.readouterr().err
        assert ("`clearpane index compact` has the lake since 2026-11-21T10:00:00Z (host a, process 7)" in error) == (held != b"?")
        assert KEY in error
    for command in commands:
        look = ["--dry-run"] if command[0] == "index" else []
        looking = [*(word for word in command if word != "--apply"), *look, "--lake", str(tmp_path / "lake")]
        assert await asyncio.to_thread(_main, looking) == 0
    assert await world.files() == before
    assert len(await store.list("calls/")) == 24
    report = await verify(store)
    assert (report.findings, report.ignored) == ([], [])
