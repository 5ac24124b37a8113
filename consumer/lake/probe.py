"""The proof, at start, that the store honours a conditional PUT: without it nothing here is exactly once."""

import asyncio
import secrets

from clearpane.store import AlreadyExists, Store
from consumer.lake.patience import certain

WRITERS = 8


class NotConditional(Exception):
    """The store lets more than one writer create a key."""


async def prove(store: Store, *, deadline_s: float = 60.0) -> None:
    """Raises NotConditional, or TimeoutError if the store does not answer in time."""
    async with asyncio.timeout(deadline_s):
        key = f"probe/{secrets.token_hex(16)}"
        try:
            await _race(store, key)
        finally:
            await certain(lambda: store.delete(key), "delete")


async def _race(store: Store, key: str) -> None:
    async def write(number: int) -> bool:
        try:
            await store.create(key, b"%d" % number)
        except AlreadyExists:
            return False
        return True

    await certain(lambda: store.size(key), "get")  # the store is there, and we may read
    won = await asyncio.gather(*(write(number) for number in range(WRITERS)))
    kept = await certain(lambda: store.get(key), "get")
    again = await write(WRITERS)
    if sum(won) != 1 or again or kept != b"%d" % won.index(True):
        raise NotConditional(
            f"{sum(won) + again} of {WRITERS + 1} writers created the same key: this store ignores `If-None-Match: *`, "
            "so records could be lost or doubled; use one that honours it (AWS S3, MinIO, R2, versitygw, a local folder)"
        )
