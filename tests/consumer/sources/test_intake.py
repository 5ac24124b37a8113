"""The intake over a real socket and a real folder."""

import asyncio
import gzip
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from clearpane.store import Store, StoreUnavailable
from consumer.lake.chain import Lake
from consumer.lake.draft import Derivation
from consumer.lake.pending import Limits
from consumer.sources.intake import Intake, IntakeSettings, UnsafeAddress
from consumer.sources.signature import sign

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SPOOL = "0199a1b2c3d47e5f8091a2b3c4d5e6f7"
SECRET = "not a secret of anybody"
Make = Callable[..., dict[str, Any]]
Post = Callable[..., Any]


class Moody(Store):
    """A real folder behind a store that can be told to fail."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Store.open(str(folder))._backend)
        self.down = False

    async def create(self, key: str, data: bytes) -> None:
        if self.down:
            raise StoreUnavailable("told to")
        await super().create(key, data)


@pytest.fixture
def store(tmp_path: Path) -> Moody:
    return Moody(tmp_path / "lake")


@pytest.fixture
async def start(store: Store, derivation: Derivation) -> AsyncIterator[Callable[..., Any]]:
    running: list[Intake] = []

    async def make(*, secret: str | None = None, deadline_s: float = 20.0, bytes_max: int = 1 << 20) -> str:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        lake = Lake(store=store, derivation=derivation, limits=Limits(records_max=1000, bytes_max=1 << 20))
        settings = IntakeSettings(host="127.0.0.1", port=0, secret=secret, bytes_max=bytes_max, deadline_s=deadline_s)
        intake = Intake(lake, settings, sock)
        await intake.start()
        running.append(intake)
        return "http://{}:{}".format(*intake.address)

    yield make
    for intake in running:
        await intake.stop()


def packed(envelopes: list[dict[str, Any]]) -> bytes:
    return zstd.compress(b"".join(orjson.dumps(e) + b"\n" for e in envelopes))


def signed(secret: str, path: str, body: bytes, at: float | None = None) -> dict[str, str]:
    stamp, nonce = str(int(at if at is not None else time.time())), "ab" * 16
    return {"clearpane-timestamp": stamp, "clearpane-nonce": nonce, "clearpane-signature": sign(secret, stamp, nonce, path, body)}


async def post(base: str, first: int, body: bytes, headers: dict[str, str] | None = None, spool: str = SPOOL) -> tuple[int, dict[str, Any]]:
    plain = {"clearpane-schema": "call.v1", "Content-Encoding": "zstd"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{base}/v1/records/{spool}/{first}", data=body, headers=plain | (headers or {})) as answer,
    ):
        return answer.status, await answer.json()


def stored(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "lake" / "calls").rglob("*.jsonl.gz"), key=lambda path: path.name)
    return [orjson.loads(line) for path in files for line in gzip.decompress(path.read_bytes()).splitlines()]


async def test_200_means_that_the_lake_has_it(start: Post, envelope: Make, tmp_path: Path) -> None:
    base = await start()
    sent = [envelope() for _ in range(3)]
    assert await post(base, 0, packed(sent)) == (200, {"end": 3})
    assert [(r["request_id"], r["lake"]["offset"]) for r in stored(tmp_path)] == [(e["request_id"], k) for k, e in enumerate(sent)]
    assert stored(tmp_path)[0]["request"] == sent[0]["request"]


async def test_a_repeated_post_is_answered_and_stored_once(start: Post, envelope: Make, tmp_path: Path) -> None:
    base = await start()
    sent = packed([envelope(), envelope()])
    assert [await post(base, 0, sent) for _ in range(3)] == [(200, {"end": 2})] * 3
    assert await post(await start(), 0, sent) == (200, {"end": 2})  # another consumer, without memory
    assert len(stored(tmp_path)) == 2


async def test_a_post_that_overlaps_adds_only_what_is_new(start: Post, envelope: Make, tmp_path: Path) -> None:
    base = await start()
    sent = [envelope() for _ in range(5)]
    await post(base, 0, packed(sent[:3]))
    assert await post(base, 1, packed(sent[1:])) == (200, {"end": 5})
    assert [r["request_id"] for r in stored(tmp_path)] == [e["request_id"] for e in sent]


async def test_a_gap_is_409_with_the_place_to_go_on_from(start: Post, envelope: Make, tmp_path: Path) -> None:
    base = await start()
    await post(base, 0, packed([envelope()]))
    status, answer = await post(base, 5, packed([envelope()]))
    assert (status, answer["end"]) == (409, 1)
    assert len(stored(tmp_path)) == 1


async def test_two_intakes_share_a_spool(start: Post, envelope: Make, tmp_path: Path) -> None:
    """Each knows only a part; no order of posts loses or doubles a record."""
    one, other = await start(), await start()
    sent = [envelope() for _ in range(6)]
    assert (await post(one, 0, packed(sent[:1])))[0] == 200
    assert (await post(other, 1, packed(sent[1:2])))[0] == 200
    assert await post(one, 2, packed(sent[2:4])) == (200, {"end": 4})  # `one` has not seen 1..2: not a gap
    answers = await asyncio.gather(post(one, 4, packed(sent[4:])), post(other, 4, packed(sent[4:5])))
    assert {status for status, _ in answers} == {200}
    assert [r["request_id"] for r in stored(tmp_path)] == [e["request_id"] for e in sent]


async def test_a_head_that_is_gone_is_no_gap(start: Post, envelope: Make, tmp_path: Path) -> None:
    now = f"{int(time.time() * 1000):012x}" + SPOOL[12:]
    sent = [envelope(source=now) for _ in range(2)]
    assert await post(await start(), 0, packed(sent[:1]), spool=now) == (200, {"end": 1})
    for head in (tmp_path / "lake" / "heads").iterdir():
        head.unlink()
    assert await post(await start(), 1, packed(sent[1:]), spool=now) == (200, {"end": 2})
    assert len(stored(tmp_path)) == 2


async def test_end_of_a_spool(start: Post, envelope: Make) -> None:
    base = await start()
    await post(base, 0, packed([envelope()]))
    async with aiohttp.ClientSession() as session, session.get(f"{base}/v1/records/{SPOOL}") as answer:
        assert (answer.status, await answer.json()) == (200, {"end": 1})
    async with aiohttp.ClientSession() as session, session.get(f"{base}/healthz") as answer:
        assert answer.status == 200


async def test_a_lake_that_is_down_is_503_and_then_nothing_is_doubled(start: Post, envelope: Make, store: Moody, tmp_path: Path) -> None:
    base = await start(deadline_s=0.3)
    sent = [envelope() for _ in range(2)]
    store.down = True
    status, _ = await post(base, 0, packed(sent[:1]))
    assert status == 503
    assert (await post(base, 0, packed(sent)))[0] == 503  # the first is still in doubt: this one waits for its turn
    store.down = False
    while (answer := await post(base, 0, packed(sent)))[0] == 503:
        await asyncio.sleep(0.05)
    assert answer == (200, {"end": 2})
    assert [r["request_id"] for r in stored(tmp_path)] == [e["request_id"] for e in sent]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda e: e | {"source": "f" * 32}, "source"),
        (lambda e: e | {"event": "started"}, "event"),
        (lambda e: e | {"schema": "call.v2"}, "schema"),
        (lambda e: e | {"request_id": "1"}, "request_id"),
        (lambda e: e | {"attempt": 0}, "attempt"),
        (lambda e: e | {"timing": {"received_at": "noon"}}, "received_at"),
        (lambda e: [e], "object"),
    ],
)
async def test_bad_lines_are_named_and_nothing_is_written(
    start: Post, envelope: Make, tmp_path: Path, change: Callable[[Any], Any], word: str
) -> None:
    status, answer = await post(await start(), 0, packed([envelope(), change(envelope())]))
    assert status == 400
    assert "line 2" in answer["error"]
    assert word in answer["error"]
    assert not (tmp_path / "lake" / "calls").exists()


async def test_bodies_have_bounds(start: Post, envelope: Make, tmp_path: Path) -> None:
    base = await start(bytes_max=100_000)
    bomb = zstd.compress(b" " * 50_000_000)
    assert len(bomb) < 100_000
    assert (await post(base, 0, bomb))[0] == 413
    assert (await post(base, 0, bytes(200_000), {"Content-Encoding": "identity"}))[0] == 413
    for body in (b"", b"\x00" * 50, packed([envelope()])[:-3]):
        assert (await post(base, 0, body))[0] == 400
    assert (await post(base, 0, b"", {"Content-Encoding": "gzip"}))[0] == 400
    assert (await post(base, 0, b"", {"clearpane-schema": "other"}))[0] == 400
    assert not (tmp_path / "lake" / "calls").exists()


async def test_only_signed_posts(start: Post, envelope: Make, tmp_path: Path) -> None:
    base = await start(secret=SECRET)
    body, path = packed([envelope()]), f"/v1/records/{SPOOL}/0"
    good = signed(SECRET, path, body)
    wrong = [
        {},
        good | {"clearpane-signature": "0" * 64},
        good | {"clearpane-nonce": "cd" * 16},
        good | {"clearpane-timestamp": str(int(good["clearpane-timestamp"]) + 1)},
        good | {"clearpane-timestamp": "now"},
        signed("another secret, 16+", path, body),
        signed(SECRET, path.replace("/0", "/1"), body),
        signed(SECRET, path, body + b" "),
        signed(SECRET, path, body, at=time.time() - 301),
        signed(SECRET, path, body, at=time.time() + 310),
    ]
    assert {(await post(base, 0, body, headers))[0] for headers in wrong} == {401}
    assert not (tmp_path / "lake" / "calls").exists()
    async with aiohttp.ClientSession() as session, session.get(f"{base}/v1/records/{SPOOL}") as answer:
        assert answer.status == 401
    replays = await asyncio.gather(*(post(base, 0, body, good) for _ in range(20)))
    assert replays == [(200, {"end": 1})] * 20
    assert len(stored(tmp_path)) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "intake.example.com"])
def test_no_secret_only_on_loopback(store: Store, derivation: Derivation, host: str) -> None:
    lake = Lake(store=store, derivation=derivation, limits=Limits(records_max=1, bytes_max=1))
    settings = IntakeSettings(host=host, port=0, secret=None, bytes_max=1, deadline_s=1)
    with pytest.raises(UnsafeAddress, match="intake_secret"):
        Intake(lake, settings)
    Intake(lake, IntakeSettings(host=host, port=0, secret=SECRET, bytes_max=1, deadline_s=1))
