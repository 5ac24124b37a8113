"""The faults before the object store do what they say, between the real client and a real server."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from clearpane.store import AlreadyExists, Store, StoreDenied, StoreError, StoreUnavailable
from tests.faults.front import Front

pytestmark = pytest.mark.s3

KEY = "calls/dt=2026-11-21/hour=02/one"


@pytest.fixture
async def front(s3_environment: dict[str, str]) -> AsyncIterator[Front]:
    found = Front(s3_environment["AWS_ENDPOINT_URL_S3"], s3_environment["AWS_SECRET_ACCESS_KEY"])
    await found.start()
    yield found
    found.clear()
    await found.stop()


@pytest.fixture
def direct(s3_lake: str) -> Store:
    return Store.open(s3_lake)


@pytest.fixture
def through(direct: Store, front: Front, s3_lake: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", front.url)
    return Store.open(s3_lake)


async def test_without_faults_it_cannot_be_told_from_the_store(through: Store, direct: Store) -> None:
    await through.create(KEY, b"one")
    with pytest.raises(AlreadyExists):
        await through.create(KEY, b"two")
    assert await through.get(KEY) == await direct.get(KEY) == b"one"
    assert await through.size(KEY) == 3
    assert await through.size(KEY + "x") is None
    assert await through.list("calls/") == await direct.list("calls/")
    assert await through.get_range(KEY, 1, 1) == b"n"


@pytest.mark.parametrize(
    ("status", "error"), [(500, StoreUnavailable), (503, StoreUnavailable), (409, StoreUnavailable), (403, StoreDenied)]
)
async def test_a_status_in_its_place(through: Store, direct: Store, front: Front, status: int, error: type[StoreError]) -> None:
    front.add(name="told", status=status, times=1)
    with pytest.raises(error):
        await through.create(KEY, b"one")
    assert await direct.size(KEY) is None
    await through.create(KEY, b"one")
    assert front.counts == {"told": 1}


@pytest.mark.parametrize("how", [{"drop": True}, {"lie": 412}, {"lie": 409}])
async def test_an_answer_that_is_not_the_stores(through: Store, direct: Store, front: Front, how: dict[str, int]) -> None:
    front.add(name="told", times=1, **how)
    with pytest.raises(AlreadyExists if how == {"lie": 412} else StoreUnavailable):
        await through.create(KEY, b"one")
    assert await direct.get(KEY) == b"one"


@pytest.mark.parametrize("how", ["cut_request", "flip"])
async def test_a_body_that_is_damaged_on_its_way_leaves_no_object(through: Store, direct: Store, front: Front, how: str) -> None:
    front.add(name="told", times=1, **{how: True})
    with pytest.raises(StoreError):
        await through.create(KEY, b"one" * 1000)
    assert await direct.size(KEY) is None


async def test_an_answer_that_is_cut(through: Store, front: Front) -> None:
    await through.create(KEY, b"one" * 1000)
    front.add(name="told", method="GET", cut_answer=True, times=1)
    with pytest.raises(StoreUnavailable):
        await through.get(KEY)
    assert await through.get(KEY) == b"one" * 1000


async def test_without_the_condition_each_writer_wins(through: Store, direct: Store, front: Front) -> None:
    front.add(name="told", strip="if-none-match")
    await through.create(KEY, b"one")
    await through.create(KEY, b"two")
    assert await direct.get(KEY) == b"two"


async def test_a_request_that_is_held_goes_on_later(through: Store, direct: Store, front: Front) -> None:
    fault = front.add(name="told", hold=asyncio.Event(), times=1)
    writing = asyncio.create_task(through.create(KEY, b"one"))
    await fault.met.wait()
    assert await direct.size(KEY) is None
    await direct.create(KEY, b"another")
    assert fault.hold is not None
    fault.hold.set()
    with pytest.raises(AlreadyExists):
        await writing
