"""The object store under the lake: a folder or S3, with a conditional PUT and errors that say what to do.

The client library's own retries are off: a second PUT of its making would turn "mine" into "exists already".
"""

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore import exceptions
from obstore.store import LocalStore, S3Store

REQUEST_TIMEOUT_S = 30.0  # of one request, the body included
CONNECT_TIMEOUT_S = 5.0
# Kept after a burst, such as the look-up of second copies; without the two, all of its connections stay open for a minute and a half.
IDLE_CONNECTIONS_MAX = 16
IDLE_TIMEOUT_S = 20.0
LIST_CHUNK = 1000

_CONFLICT = re.compile(r"status code: 409\b")
T = TypeVar("T")


class StoreError(Exception):
    """Any of the four below."""


class AlreadyExists(StoreError):
    """A conditional PUT found the key taken: by another, or by our own PUT whose answer was lost."""


class NotFound(StoreError):
    """No object at this key (or, of a PUT, no such bucket)."""


class StoreUnavailable(StoreError):
    """In doubt: the request may or may not have been carried out. The same request again is the cure."""


class StoreDenied(StoreError):
    """Credentials, permissions or bucket are wrong: a person has to act."""


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    size: int  # bytes


class Store:
    """Keys are relative to the folder or the bucket's prefix. Every method raises only the errors above."""

    def __init__(self, backend: LocalStore | S3Store) -> None:
        self._backend = backend

    @staticmethod
    def open(lake: str) -> "Store":
        """A folder (made if absent), or s3://bucket/prefix with the usual AWS_* variables."""
        return Store(_s3(lake) if lake.startswith("s3://") else _folder(lake))

    async def create(self, key: str, data: bytes) -> None:
        """Only the first writer of a key succeeds; each other one gets AlreadyExists."""
        # Never multipart: only a single PUT is one conditional, atomic step on every store.
        await _translated(obstore.put_async(self._backend, key, data, mode="create", use_multipart=False), writing=True)

    async def put(self, key: str, data: bytes) -> None:
        await _translated(obstore.put_async(self._backend, key, data, use_multipart=False), writing=True)

    async def get(self, key: str) -> bytes:
        async def read() -> bytes:
            answer = await obstore.get_async(self._backend, key)
            return bytes(await answer.bytes_async())

        return await _translated(read())

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """At most `length` bytes: fewer where the object ends."""

        async def read() -> bytes:
            return bytes(await obstore.get_range_async(self._backend, key, start=start, length=length))

        return await _translated(read())

    async def size(self, key: str) -> int | None:
        """Bytes, or None where there is no object."""

        async def read() -> int:
            return (await obstore.head_async(self._backend, key))["size"]

        try:
            return await _translated(read())
        except NotFound:
            return None

    async def level(self, prefix: str) -> tuple[list[str], list[Entry]]:
        """What stands directly under `prefix`: folders (each ends in `/`, as `prefix` does) and objects, both sorted."""

        async def read() -> tuple[list[str], list[Entry]]:
            found = await obstore.list_with_delimiter_async(self._backend, prefix.rstrip("/"))
            folders = sorted(f"{folder.rstrip('/')}/" for folder in found["common_prefixes"])
            return folders, sorted((Entry(meta["path"], meta["size"]) for meta in found["objects"]), key=lambda entry: entry.key)

        return await _translated(read())

    async def list(self, prefix: str, *, after: str | None = None) -> list[Entry]:
        """Every object whose key starts with `prefix` (and comes after `after`), sorted by key."""

        async def read() -> list[Entry]:
            found = []
            # The library knows prefixes of whole path segments only: ask for the folder, then filter.
            stream = obstore.list(self._backend, prefix.rpartition("/")[0] or None, offset=after, chunk_size=LIST_CHUNK)
            async for chunk in stream:
                found += [Entry(meta["path"], meta["size"]) for meta in chunk if meta["path"].startswith(prefix)]
            return sorted(found, key=lambda entry: entry.key)

        return [entry for entry in await _translated(read()) if after is None or entry.key > after]

    async def delete(self, key: str) -> None:
        """No error if there is no such object."""
        try:
            await _translated(obstore.delete_async(self._backend, key))
        except NotFound:
            return


def _folder(path: str) -> LocalStore:
    try:
        return LocalStore(Path(path).absolute(), mkdir=True)
    except (exceptions.BaseError, OSError, ValueError) as error:
        raise StoreDenied(f"cannot use the folder {path}: {_first_line(error)}") from error


def _s3(url: str) -> S3Store:
    # http endpoints are those of a developer's own gateway; an https one is not weakened by this.
    client: dict[str, Any] = {
        "allow_http": True,
        "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "pool_max_idle_per_host": str(IDLE_CONNECTIONS_MAX),
        "pool_idle_timeout": timedelta(seconds=IDLE_TIMEOUT_S),
    }
    try:
        return S3Store.from_url(
            url,
            client_options=client,  # type: ignore[arg-type]
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=REQUEST_TIMEOUT_S)},
            checksum_algorithm="SHA256",  # a body cut on the way is refused by the store
            disable_bulk_delete=True,  # not every gateway has it
        )
    except (exceptions.BaseError, ValueError) as error:
        raise StoreDenied(f"cannot use {url}: {_first_line(error)}") from error


async def _translated(request: Coroutine[Any, Any, T], *, writing: bool = False) -> T:
    try:
        return await request
    except (exceptions.BaseError, OSError, ValueError) as error:
        raise _meaning(error, writing)(_first_line(error)) from error


def _meaning(error: Exception, writing: bool) -> Callable[[str], StoreError]:
    text = str(error)
    if _CONFLICT.search(text):
        return StoreUnavailable  # 409: a racing request is under way, nothing is decided yet
    if isinstance(error, FileNotFoundError):
        # Of a PUT, 404 means the bucket.
        return StoreDenied if writing else NotFound
    if isinstance(error, exceptions.AlreadyExistsError | exceptions.PreconditionError):
        return AlreadyExists
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError | PermissionError):
        return StoreDenied
    if isinstance(error, exceptions.InvalidPathError | exceptions.NotSupportedError):
        return StoreDenied
    if "Permission denied" in text or "Read-only file system" in text:
        return StoreDenied
    return StoreUnavailable


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:500]
