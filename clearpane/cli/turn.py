"""One command at a time changes the lake's index or deletes from it: each takes the turn, a key that only one can create.

Two at once would undo one another: one writes a file from what it read before the other replaced it, and a price is the old one
again, or the rows of deleted calls are back. Consumers and readers need no turn.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import Any

import orjson

from clearpane.store import AlreadyExists, NotFound, Store, StoreError, StoreUnavailable

KEY = "upkeep/turn.json"


class Taken(Exception):
    """Another command has the turn: which, where, and what to do if it is gone."""


def turn(store: Store, command: str, *, apply: bool) -> AbstractAsyncContextManager[Store]:
    """Gives the store to make the changes with; where nothing is changed it takes no turn. Raises Taken, StoreError."""
    return _taken(store, command) if apply else nullcontext(store)


@asynccontextmanager
async def _taken(store: Store, command: str) -> AsyncIterator[Store]:
    """Given back at the end, unless a change is in doubt: it may still arrive. It never expires: whoever is slow is not gone."""
    mine = {"command": command, "host": socket.gethostname(), "pid": os.getpid(), "since": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    mine["nonce"] = secrets.token_hex(8)
    try:
        await store.create(KEY, orjson.dumps(mine))
    except AlreadyExists as error:
        holder = await _holder(store)
        if holder.get("nonce") != mine["nonce"]:  # else it was our own request that came twice
            raise Taken(_said(holder)) from error
    watched = _Watched(store)
    try:
        yield watched
    except BaseException:
        if not watched.in_doubt:
            with suppress(StoreError):  # the first error says more
                await _give_back(store, mine)
        raise
    if not watched.in_doubt:
        await _give_back(store, mine)


async def _give_back(store: Store, mine: dict[str, Any]) -> None:
    """A person may have deleted it, and another command have taken it since."""
    if (await _holder(store)).get("nonce") == mine["nonce"]:
        await store.delete(KEY)


async def _holder(store: Store) -> dict[str, Any]:
    try:
        found = orjson.loads(await store.get(KEY))
    except (NotFound, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _said(holder: dict[str, Any]) -> str:
    command, since, host, pid = (holder.get(name, "?") for name in ("command", "since", "host", "pid"))
    return (
        f"`clearpane {command}` has the lake since {since} (host {host}, process {pid}): wait for it; "
        f"if it no longer runs, delete {KEY} from the lake, a minute after it ended"
    )


class _Watched(Store):
    """Knows whether the outcome of a change is unknown."""

    def __init__(self, store: Store) -> None:
        super().__init__(store._backend)  # noqa: SLF001
        self._store = store
        self.in_doubt = False

    async def create(self, key: str, data: bytes) -> None:
        await self._certain(self._store.create(key, data))

    async def put(self, key: str, data: bytes) -> None:
        await self._certain(self._store.put(key, data))

    async def delete(self, key: str) -> None:
        await self._certain(self._store.delete(key))

    async def _certain(self, change: Awaitable[None]) -> None:
        try:
            await change
        except (StoreUnavailable, asyncio.CancelledError):
            self.in_doubt = True
            raise
