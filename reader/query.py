"""SQL over the index: DuckDB sees one view, `calls`, and nothing else of the machine. The only module that knows duckdb."""

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import duckdb

from clearpane.store import NotFound, Store, StoreError
from reader import index
from reader.lake import Hours, LakeError, LakeObject, hours, objects

VIEW = "calls"
MEMORY_LIMIT = "2GiB"


class BadQuery(Exception):
    """What DuckDB says of the query, in one line."""


@dataclass(frozen=True, slots=True)
class Answer:
    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


@contextmanager
def query(store: Store, sql: str) -> Iterator[Answer]:
    """The answer, read as it is taken. The view has the columns of COLUMNS, and `dt` and `hour` of the file.

    The files are those that stand in the lake now. Raises BadQuery, LakeError, StoreError (also while rows are taken).
    """
    with _LoopThread() as loop, duckdb.connect(config={"python_enable_replacements": "false", "memory_limit": MEMORY_LIMIT}) as connection:
        files = loop.run(_files(store))
        opened = [(file.place, _opener(store, loop, file)) for file in files]
        connection.register(VIEW, index.dataset(opened))
        # From here on a query reaches neither files nor the network, and cannot change that.
        for setting in ("TimeZone = 'UTC'", "enable_external_access = false", "lock_configuration = true"):
            connection.execute(f"SET {setting}")
        with _one_line(loop):
            yield _asked(connection, sql)


def _asked(connection: duckdb.DuckDBPyConnection, sql: str) -> Answer:
    relation = connection.sql(sql)
    return Answer((), iter(())) if relation is None else Answer(*index.stream(relation))


@contextmanager
def _one_line(loop: "_LoopThread") -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, index.BrokenScan) as error:
        if isinstance(loop.failure, NotFound):
            raise LakeError("an index file was put together with others meanwhile, or deleted: ask again") from error
        if loop.failure is not None:  # the others wrap what our files raise
            raise loop.failure from error
        text = " ".join(str(error).split())
        raise BadQuery(f"{text} (`clearpane verify` names damaged files)" if "arquet" in text else text) from error


async def _files(store: Store) -> list[LakeObject]:
    return [file async for hour in hours(store, "index", Hours()) for file in await objects(store, "index", hour)]


def _opener(store: Store, loop: "_LoopThread", file: LakeObject) -> Callable[[], io.RawIOBase]:
    return lambda: _LakeFile(store, loop, file)


class _LoopThread:
    """Runs the store's coroutines for DuckDB's threads, which know no event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lake reads", daemon=True)
        self.failure: StoreError | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine: Any) -> Any:
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
        except StoreError as error:
            self.failure = error
            raise


class _LakeFile(io.RawIOBase):
    """An object of the lake as a file: each read is one range read."""

    def __init__(self, store: Store, loop: _LoopThread, file: LakeObject) -> None:
        self._store, self._loop, self._file, self._position = store, loop, file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        rest = max(0, self._file.size - self._position)
        wanted = rest if size is None or size < 0 else min(size, rest)
        if not wanted:
            return b""
        data: bytes = self._loop.run(self._store.get_range(self._file.key, self._position, wanted))
        self._position += len(data)
        return data
