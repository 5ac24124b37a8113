"""What was seen so far, in a temporary database: a lake of any size fits, in bounded memory."""

import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from clearpane.contract.lake import Place, parse_key
from reader.lake import LakeObject

_CACHE_KIB = 64 << 10
_TABLES = """
create table objects (log text, start integer, key text, size integer, primary key (log, start, key)) without rowid;
create table records (id blob primary key, object integer) without rowid;
create table names (number integer primary key, key text);
"""


class Ledger:
    """Closing it removes its file."""

    def __init__(self) -> None:
        # An empty name: sqlite keeps the database in its cache and spills it to a private temporary file.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(f"pragma journal_mode = off; pragma synchronous = off; pragma cache_size = -{_CACHE_KIB};{_TABLES}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._database.close()

    def add(self, found: Iterable[LakeObject]) -> None:
        """Objects that are known already are passed over."""
        rows = ((o.place.log, _sortable(o.place.start), o.key, o.size) for o in found)
        self._database.executemany("insert or ignore into objects values (?, ?, ?, ?)", rows)

    def logs(self) -> list[str]:
        return [log for (log,) in self._database.execute("select distinct log from objects order by log")]

    def newest(self, log: str) -> int | None:
        """The start of the log's last object."""
        (start,) = self._database.execute("select max(start) from objects where log = ?", (log,)).fetchone()
        return None if start is None else int(start)

    def objects(self, log: str) -> Iterator[LakeObject]:
        """By start."""
        for key, size in self._database.execute("select key, size from objects where log = ? order by start, key", (log,)):
            yield LakeObject(key=key, size=size, place=_place(key))

    def holds(self, place: Place) -> bool:
        found = self._database.execute(
            "select 1 from objects where log = ? and start = ? and key = ?", (place.log, _sortable(place.start), place.key("calls"))
        )
        return found.fetchone() is not None

    def number(self, key: str) -> int:
        """A short name for an object, for claim()."""
        return self._database.execute("insert into names (key) values (?)", (key,)).lastrowid or 0

    def claim(self, request_id: str, number: int) -> str | None:
        """Notes that the record stands in the object `number`; the key of the object where it was seen before, if it was."""
        name = _bytes(request_id)
        if self._database.execute("insert or ignore into records values (?, ?)", (name, number)).rowcount:
            return None
        (key,) = self._database.execute("select key from names join records on number = object where id = ?", (name,)).fetchone()
        return str(key)


def _place(key: str) -> Place:
    parsed = parse_key(key)
    assert parsed, key
    return parsed[1]


def _sortable(start: int) -> int:
    """A key has room for 20 digits, sqlite for 63 bits: what is beyond is at the end."""
    return min(start, 2**63 - 1)


def _bytes(request_id: str) -> bytes:
    try:
        return uuid.UUID(request_id).bytes
    except ValueError:
        return request_id.encode(errors="replace")
