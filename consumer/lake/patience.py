"""Requests to the store, made again until their outcome is known."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from clearpane.store import StoreDenied, StoreUnavailable
from consumer import metrics

log = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_PAUSE_S = 0.1
PAUSE_S_MAX = 10.0
DENIED_PAUSE_S = 30.0


async def certain(request: Callable[[], Awaitable[T]], kind: str) -> T:
    """The same request until the store has decided it. `kind` (a closed set) labels the metrics.

    Raises AlreadyExists and NotFound, which are decisions. There is no deadline: giving up on a write in
    doubt would be a loss or a double. Callers with a deadline wait for it from outside.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return await request()
        except StoreUnavailable as error:
            metrics.store_errors.labels("unavailable").inc()
            log.warning("the lake is not available (%s), trying again in %.1f s: %s", kind, pause_s, error)
            wait_s = pause_s
            pause_s = min(pause_s * 2, PAUSE_S_MAX)
        except StoreDenied as error:
            metrics.store_errors.labels("denied").inc()
            log.error(  # noqa: TRY400  # the stack says nothing, the words do
                "the lake refuses this consumer (%s): give its credentials the right to get, put and list under the lake's prefix, "
                "and check bucket and region; records wait meanwhile: %s",
                kind,
                error,
            )
            wait_s = DENIED_PAUSE_S
        metrics.store_retries.labels(kind).inc()
        await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311
