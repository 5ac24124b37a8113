"""Journal: the shipper's own memory of one spool, in `<spool>/journal/`. What stands in it survives any crash.

A file is a sequence of batches, `u32 length | u32 crc32 | JSON list of entries`, little endian; the first batch is a
snapshot of all that came before, so only the newest file counts. A batch is there wholly or not at all.
"""

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import orjson

Entry = list[Any]

_HEAD = struct.Struct("<II")
_FOLDER = "journal"
# A batch longer than this is damage: a snapshot holds the facts of open calls, a few KB each.
_BATCH_BYTES_MAX = 1 << 30
# A file is written anew when it is larger than this and than four snapshots.
_COMPACT_BYTES_MIN = 1 << 20
# Looks at a journal that is written anew meanwhile, which takes a megabyte each time; a link to nowhere is never there.
_PEEKS_MAX = 10


def encode(entries: list[Entry]) -> bytes:
    body = orjson.dumps(entries)
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def decode(data: bytes) -> tuple[list[list[Entry]], int]:
    """(batches, bytes they take): reading ends before the first batch that is torn or damaged."""
    batches: list[list[Entry]] = []
    at = 0
    while at + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, at)
        body = data[at + _HEAD.size : at + _HEAD.size + length]
        if not 0 < length == len(body) <= _BATCH_BYTES_MAX or zlib.crc32(body) != checksum:
            break
        batches.append(orjson.loads(body))
        at += _HEAD.size + length
    return batches, at


class Journal:
    """Every method may raise OSError; after that only `rewrite` works, into a new file: an fsync that failed is never tried again."""

    def __init__(self, spool: Path) -> None:
        self.damaged_bytes = 0
        self.bytes = 0
        self._folder = spool / _FOLDER
        self._descriptor = -1
        self._number = 0
        self._snapshot_bytes = 0

    def load(self) -> list[Entry]:
        """All entries in their order. `rewrite` must follow."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        found, self._number, self.damaged_bytes = _newest(self._folder)
        return found

    @property
    def broken(self) -> bool:
        return self._descriptor < 0

    @property
    def overgrown(self) -> bool:
        return self.bytes > max(_COMPACT_BYTES_MIN, 4 * self._snapshot_bytes)

    def append(self, entries: list[Entry], *, durable: bool) -> None:
        """One batch; `durable`: it also survives the loss of power."""
        data = encode(entries)
        try:
            _write(self._descriptor, data)
            if durable:
                os.fdatasync(self._descriptor)
        except OSError:
            self.close()
            raise
        self.bytes += len(data)

    def sync(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError:
            self.close()
            raise

    def rewrite(self, snapshot: list[Entry]) -> None:
        """A new file that begins with the snapshot takes the place of all others."""
        self.close()
        number, data = self._number + 1, encode(snapshot)
        staging = self._folder / "new"
        descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write(descriptor, data)
            os.fdatasync(descriptor)
            staging.rename(self._path(number))
            self._sync_folder()
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor, self._number = descriptor, number
        self.bytes = self._snapshot_bytes = len(data)
        for old in _files(self._folder):
            if old < number:
                self._path(old).unlink(missing_ok=True)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _path(self, number: int) -> Path:
        return _file(self._folder, number)

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def peek(spool: Path) -> list[Entry]:
    """What the journal says at this moment, touching nothing: its shipper may be at work. Raises OSError."""
    for _ in range(_PEEKS_MAX - 1):
        try:
            return _newest(spool / _FOLDER)[0]
        except FileNotFoundError:
            continue  # written anew between the look and the reading; a journal that is gone has no files
    return _newest(spool / _FOLDER)[0]


def _newest(folder: Path) -> tuple[list[Entry], int, int]:
    """Entries, the file's number (0: none), bytes at its end that are no batch."""
    files = _files(folder)
    if not files:
        return [], 0, 0
    data = _file(folder, files[-1]).read_bytes()
    batches, used = decode(data)
    return [entry for batch in batches for entry in batch], files[-1], len(data) - used


def _files(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.journal") if path.stem.isdigit())


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:010d}.journal"


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
