"""Single steps of the protocol, each named after what happened to the store."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from clearpane.contract.lake import head_key, parse_key
from clearpane.store import Store, StoreDenied, StoreUnavailable
from consumer.lake import patience, probe
from consumer.lake.chain import Chain, Lake
from consumer.lake.draft import Derivation
from consumer.lake.index import merged
from consumer.lake.ledger import READS_AT_ONCE
from consumer.lake.messages import Message, decode
from consumer.lake.pending import Limits, Pending
from consumer.lake.probe import NotConditional, prove
from consumer.lake.tail import ChainBroken, Tail

Make = Callable[..., dict[str, Any]]
LOG = "k-t-0-0"
NOW_MS = 1_795_228_200_000


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "lake") if request.param == "folder" else request.getfixturevalue("s3_lake")


@pytest.fixture
def make_lake(derivation: Derivation) -> Callable[[Store], Lake]:
    return lambda store: Lake(store=store, derivation=derivation, limits=Limits(records_max=1000, bytes_max=64 << 20))


async def opened(lake: Lake) -> Chain:
    async def genesis() -> int:
        return 0

    return await Chain.open(lake, LOG, genesis=genesis)


def pending(end: int, envelopes: list[dict[str, Any]], timestamp_ms: int = NOW_MS) -> Pending:
    found = Pending(end=end)
    for number, e in enumerate(envelopes):
        found.add(end + number, decode(Message(end + number, timestamp_ms, orjson.dumps(e))))
    return found


class Wrapped(Store):
    """The real store, and a hook before each create."""

    def __init__(self, address: str) -> None:
        super().__init__(Store.open(address)._backend)
        self.lose = 0
        self.deny = 0

    async def create(self, key: str, data: bytes) -> None:
        if self.deny:
            self.deny -= 1
            raise StoreDenied("403")
        await super().create(key, data)
        if self.lose and key.startswith("calls/"):
            self.lose -= 1
            raise StoreUnavailable("the answer was lost")


async def test_a_lost_answer_is_recognised(address: str, make_lake: Callable[[Store], Lake], envelope: Make) -> None:
    store = Wrapped(address)
    chain = await opened(make_lake(store))
    store.lose = 1
    await chain.append(pending(0, [envelope(), envelope()]))
    await chain.append(pending(2, [envelope()]))
    assert chain.tail.end == 3
    assert len(await store.list("calls/")) == 2


class Gated(Store):
    """The real store, whose index files are answered only once `open` is set."""

    def __init__(self, address: str) -> None:
        super().__init__(Store.open(address)._backend)
        self.open = asyncio.Event()
        self.reading = 0
        self.begun: set[str] = set()  # logs

    async def get(self, key: str) -> bytes:
        if key.startswith("index/"):
            self.begun.add(key.rpartition("-")[0].rpartition("/")[2])
            self.reading += 1
            await self.open.wait()
            self.reading -= 1
        return await super().get(key)


async def test_all_look_ups_of_second_copies_share_one_bound(tmp_path: Path, derivation: Derivation, envelope: Make) -> None:
    """Two logs of more index files than may be read at once: the second one waits for the first."""
    names, now_ms = ("k-t-0-0", "k-t-0-1"), int(time.time() * 1000)
    store = Gated(str(tmp_path))
    lake = Lake(store=store, derivation=derivation, limits=Limits(records_max=1, bytes_max=1 << 20))
    waiting: dict[str, Pending] = {}
    for name in names:
        chain = await Chain.open(lake, name)
        calls = [envelope() for _ in range(READS_AT_ONCE)]
        await chain.append(pending(0, calls, now_ms))
        waiting[name] = pending(READS_AT_ONCE, [{**calls[0], "attempt": 2}], now_ms)
    appending = [asyncio.create_task((await Chain.open(lake, name)).append(waiting[name])) for name in names]
    async with asyncio.timeout(30):
        while store.reading < READS_AT_ONCE:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)  # time for a second log to exceed the bound, if it could
    assert store.reading == READS_AT_ONCE
    store.open.set()
    await asyncio.gather(*appending)
    assert store.begun == set(names)
    assert len(await store.list("calls/")) == len(names) * READS_AT_ONCE  # both were copies


async def test_look_ups_in_files_of_many_share_it_too(tmp_path: Path, derivation: Derivation, envelope: Make) -> None:
    """One file each for more logs than files may be read at once."""
    names, now_ms = [f"k-t-0-{number}" for number in range(READS_AT_ONCE + 4)], int(time.time() * 1000)
    store = Gated(str(tmp_path))
    lake = Lake(store=store, derivation=derivation, limits=Limits(records_max=1, bytes_max=1 << 20))
    appending = []
    for name in names:
        calls = [envelope() for _ in range(2)]
        await (await Chain.open(lake, name)).append(pending(0, calls, now_ms))
        small = [parse_key(entry.key)[1] for entry in await store.list("index/") if f"/{name}-" in entry.key]  # type: ignore[index]
        data = [await Store.get(store, place.key("index")) for place in small]
        await store.put(replace(small[0], last=small[1].start).key("index"), merged(data))
        for place in small:
            await store.delete(place.key("index"))
        again = pending(2, [{**calls[0], "attempt": 2}], now_ms)
        appending.append(asyncio.create_task((await Chain.open(lake, name)).append(again)))
    await asyncio.sleep(1.0)
    assert store.reading == READS_AT_ONCE
    store.open.set()
    await asyncio.gather(*appending)
    assert len(await store.list("calls/")) == len(names) * 2


async def test_the_loser_of_a_race_adopts(address: str, make_lake: Callable[[Store], Lake], envelope: Make) -> None:
    """Large enough that a server may hang up on the loser instead of answering."""
    lake = make_lake(Store.open(address))
    text = "".join(chr(0x4E00 + n * 7919 % 20000) for n in range(400_000))
    big = [envelope(policy={"text": text[n:] + text[:n]}) for n in range(6)]
    one, other = await opened(lake), await opened(lake)
    await one.append(pending(0, big[:4]))
    await other.append(pending(0, big))
    assert other.tail.end == 6
    assert [len(await lake.store.list(f"{kind}/")) for kind in ("calls", "index")] == [2, 2]
    again = await opened(lake)
    assert again.tail == other.tail


async def test_denied_is_an_alarm_and_never_a_yes(
    address: str, make_lake: Callable[[Store], Lake], envelope: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "DENIED_PAUSE_S", 0.01)
    store = Wrapped(address)
    chain = await opened(make_lake(store))
    store.deny = 3
    with caplog.at_level(logging.ERROR):
        await chain.append(pending(0, [envelope()]))
    assert caplog.text.count("give its credentials the right") == 3
    assert len(await store.list("calls/")) == 1


async def test_two_that_begin_together_begin_one_chain(address: str, make_lake: Callable[[Store], Lake]) -> None:
    async def first() -> int:
        return 3

    async def later() -> int:
        return 9

    lake = make_lake(Store.open(address))
    one, other = await Chain.open(lake, LOG, genesis=first), await Chain.open(lake, LOG, genesis=later)
    assert (one.tail.end, other.tail.end) == (3, 3)


async def test_a_foreign_object_stops_the_log(tmp_path: Path, make_lake: Callable[[Store], Lake], envelope: Make) -> None:
    store = Store.open(str(tmp_path))
    lake = make_lake(store)
    one, other = await opened(lake), await opened(lake)
    await one.append(pending(0, [envelope()]))
    (entry,) = await store.list("calls/")
    data = await store.get(entry.key)
    for broken in (b"", b"something", data[:-20], data[:-1] + b"x", data.replace(LOG.encode(), b"k-u-0-0")):
        await store.put(entry.key, broken)
        with pytest.raises(ChainBroken):
            await other.append(pending(0, [envelope()]))
    await store.put(entry.key, data)
    await other.append(pending(0, [envelope(), envelope()]))
    assert other.tail.end == 2


async def test_a_damaged_head_says_what_to_do(tmp_path: Path, make_lake: Callable[[Store], Lake]) -> None:
    store = Store.open(str(tmp_path))
    for broken in (b"", b"[]", b"{}", b'{"log":1}', Tail(log="k-other-0-0", genesis=0, end=0).to_json()):
        await store.put(head_key(LOG), broken)
        with pytest.raises(ChainBroken, match="delete it"):
            await opened(make_lake(store))


async def test_the_probe_accepts_what_is_conditional(address: str) -> None:
    store = Store.open(address)
    await prove(store)
    assert await store.list("probe/") == []


async def test_the_probe_refuses_what_is_not(address: str) -> None:
    class Liar(Store):
        async def create(self, key: str, data: bytes) -> None:
            await self.put(key, data)

    with pytest.raises(NotConditional, match="If-None-Match"):
        await prove(Liar(Store.open(address)._backend))


async def test_the_probe_waits_for_a_store_and_says_so_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PAUSE_S", 0.01)
    store = Wrapped(str(tmp_path))

    async def lost(key: str, data: bytes) -> None:
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(store, "create", lost)
    with pytest.raises(StoreUnavailable, match="did not answer within"):
        await prove(store, deadline_s=0.1)
    monkeypatch.undo()
    store.deny = 100
    with pytest.raises(StoreDenied):
        await prove(store)


async def test_an_old_log_without_a_head_is_looked_for_in_the_days_that_there_are(
    address: str, make_lake: Callable[[Store], Lake], envelope: Make
) -> None:
    class Counting(Store):
        lists = 0

        async def list(self, prefix: str, *, after: str | None = None) -> list[Any]:
            Counting.lists += 1
            return await super().list(prefix, after=after)

    store = Counting(Store.open(address)._backend)
    born = datetime.fromtimestamp(NOW_MS / 1000, tz=UTC) - timedelta(days=400)
    chain = await Chain.open(make_lake(store), LOG, since=born)
    await chain.append(pending(0, [envelope() for _ in range(3)]))
    await store.delete(head_key(LOG))
    Counting.lists = 0
    assert (await Chain.open(make_lake(store), LOG, since=born)).tail.end == 3
    assert Counting.lists < 40
