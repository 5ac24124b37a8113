"""The proof, at start, that the store honours a conditional PUT: without it nothing here is exactly once."""

import asyncio
import contextlib
import logging
import secrets

from clearpane.store import AlreadyExists, Store, StoreError, StoreUnavailable

log = logging.getLogger(__name__)

WRITERS = 8
PAUSE_S = 1.0


class NotConditional(Exception):
    """The store lets more than one writer create a key."""


async def prove(store: Store, *, deadline_s: float = 60.0) -> None:
    """Raises NotConditional, StoreDenied, or StoreUnavailable when the deadline has passed."""
    try:
        async with asyncio.timeout(deadline_s):
            while not await _decided(store):  # noqa: ASYNC110  # a remote store tells nobody when it is back
                await asyncio.sleep(PAUSE_S)
    except TimeoutError:
        raise StoreUnavailable(f"the lake did not answer within {deadline_s:.0f} s: check address and network") from None


async def _decided(store: Store) -> bool:
    key = f"probe/{secrets.token_hex(16)}"
    try:
        await _race(store, key)
    except StoreUnavailable as error:
        log.warning("the lake is not available yet: %s", error)
        return False
    finally:
        # Credentials without the right to delete are good ones: then a byte stays behind.
        with contextlib.suppress(StoreError):
            await store.delete(key)
    return True


async def _race(store: Store, key: str) -> None:
    async def write(number: int) -> bool:
        try:
            await store.create(key, b"%d" % number)
        except AlreadyExists:
            return False
        return True

    won = await asyncio.gather(*(write(number) for number in range(WRITERS)))
    kept = await store.get(key)
    again = await write(WRITERS)
    if sum(won) != 1 or again or kept != b"%d" % won.index(True):
        raise NotConditional(
            f"{sum(won) + again} of {WRITERS + 1} writers created the same key: this store ignores `If-None-Match: *`, "
            "so records could be lost or doubled; use one that honours it (AWS S3, MinIO, R2, versitygw, a local folder)"
        )
