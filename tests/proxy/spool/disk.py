"""A disk of which everything is decided by the test: what a write takes, when it refuses, when the process dies in the middle of it.

It stands in for `os` and `fcntl` in the spool's modules. What was written is the kernel's and outlives the process; what was
synced outlives the power, too. Beside the bytes as they are it keeps them as they were written, and where they were damaged.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

_SEGMENT = re.compile(r"/[0-9]{20}\.seg$")


class Died(BaseException):
    """SIGKILL, in the middle of an operation."""


@dataclass(eq=False)
class File:
    name: str
    number: int
    data: bytearray = field(default_factory=bytearray)
    written: bytearray = field(default_factory=bytearray)  # the same without damage
    damaged: list[tuple[int, int]] = field(default_factory=list)
    synced_bytes: int = 0
    named: bool = False  # its name is synced
    links: int = 1
    holders: set[int] = field(default_factory=set)  # descriptors of whoever locks it

    def damage(self, start: int, end: int) -> None:
        self.damaged.append((start, end))

    def is_damaged(self, start: int, end: int) -> bool:
        return any(low < end and start < high for low, high in self.damaged)

    def cut(self, size: int) -> None:
        """By no writer: what stood behind is damaged."""
        self.damage(size, max(size, len(self.written)) + 1)
        del self.data[size:]


@dataclass(frozen=True)
class Trouble:
    """For the next operation of this kind: an error, or death without one. Of a write this `share` is done, all else is or is not."""

    operation: str
    error: int | None
    share: float = 0.0


class Place:
    """As much of a Path as the spool uses."""

    def __init__(self, disk: "Disk", path: str) -> None:
        self.disk, self.path = disk, path
        self.name = path.rpartition("/")[2]

    def __truediv__(self, name: str) -> "Place":
        return Place(self.disk, f"{self.path}/{name}")

    def exists(self) -> bool:
        return self.path in self.disk.folders

    def mkdir(self, **_: Any) -> None:
        self.disk.folders.add(self.path)

    def rename(self, to: "Place") -> None:
        files = self.disk.files
        for path in [path for path in files if path.startswith(f"{self.path}/")]:
            files[to.path + path.removeprefix(self.path)] = files.pop(path)
        self.disk.folders.remove(self.path)
        self.disk.folders.add(to.path)

    def stat(self) -> SimpleNamespace:
        return _stat(self.disk.at(self))

    def unlink(self, *, missing_ok: bool = False) -> None:
        file = self.disk.files.pop(self.path, None)
        if file is not None:
            file.links = 0
        elif not missing_ok:
            raise FileNotFoundError(self.path)


class Disk:
    """`size`: bytes that all files together may have."""

    LOCK_EX, LOCK_NB = 1, 2
    path = os.path

    def __init__(self) -> None:
        self.folders: set[str] = set()
        self.files: dict[str, File] = {}
        self.ever: list[File] = []
        self.size = 1 << 40
        self.troubles: list[Trouble] = []
        self.refused_cuts = 0
        self.interlude: Callable[[], None] | None = None  # in the middle of the next write
        self._open: dict[int, File | None] = {}
        self._next = 100
        self._error: int | None = None  # what a short write was stopped by

    def __getattr__(self, name: str) -> Any:
        if name.startswith("O_"):
            return getattr(os, name)
        raise AttributeError(name)

    def at(self, place: Place) -> File:
        if place.path not in self.files:
            raise FileNotFoundError(place.path)
        return self.files[place.path]

    def segments(self) -> list[File]:
        found = [(path, file) for path, file in self.files.items() if _SEGMENT.search(path)]
        return [file for _, file in sorted(found, key=lambda each: each[0])]

    def make(self, path: str, data: bytes = b"") -> File:
        file = self.files[path] = File(path.rpartition("/")[2], len(self.ever), bytearray(data), bytearray(data))
        self.ever.append(file)
        return file

    def lose_power(self, share: float) -> None:
        """Of what was not synced this share is there again."""
        for file in self.segments():
            start = file.synced_bytes if file.named else 0
            if start < len(file.data):
                file.cut(start + int(share * (len(file.data) - start)))

    # What the spool calls

    def open(self, place: Place, flags: int, mode: int = 0) -> int:
        after = self._step("open")
        if flags & os.O_DIRECTORY:
            return self._descriptor(None)
        if place.path in self.files and flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, place.path)
        if place.path not in self.files:
            if not flags & os.O_CREAT or place.path.rpartition("/")[0] not in self.folders:
                raise FileNotFoundError(errno.ENOENT, place.path)
            self.make(place.path)
        after()
        return self._descriptor(self.files[place.path])

    def close(self, descriptor: int) -> None:
        file = self._open.pop(descriptor)
        if file is not None:
            file.holders.discard(descriptor)

    def writev(self, descriptor: int, buffers: list[bytes]) -> int:
        return self.write(descriptor, b"".join(buffers))

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        file = self._file(descriptor)
        error, self._error = self._error, None
        if error is not None:
            raise OSError(error, os.strerror(error))
        trouble = self._due("write")
        part = len(data) if trouble is None else int(trouble.share * len(data))
        room = max(0, self.size - self._used())
        self._append(file, bytes(data[: min(part, room)]))
        if room < part:
            return self._short(room, errno.ENOSPC)
        if trouble is None:
            return part
        if trouble.error is None:
            raise Died
        return self._short(part, trouble.error)

    def pread(self, descriptor: int, size: int, offset: int) -> bytes:
        self._step("read")
        return bytes(self._file(descriptor).data[offset : offset + size])

    def ftruncate(self, descriptor: int, size: int) -> None:
        try:
            after = self._step("truncate")
        except OSError:
            self.refused_cuts += 1
            raise
        file = self._file(descriptor)
        del file.data[size:], file.written[size:]
        file.synced_bytes = min(file.synced_bytes, size)
        after()

    def fdatasync(self, descriptor: int) -> None:
        after = self._step("sync")
        file = self._file(descriptor)
        file.synced_bytes = len(file.data)
        after()

    def fsync(self, descriptor: int) -> None:
        """Of the folder."""
        after = self._step("sync")
        for file in self.files.values():
            file.named = True
        after()

    def fstat(self, descriptor: int) -> SimpleNamespace:
        return _stat(self._file(descriptor))

    def listdir(self, place: Place) -> list[str]:
        if place.path not in self.folders:
            raise FileNotFoundError(errno.ENOENT, place.path)
        return [path.rpartition("/")[2] for path in self.files if path.rpartition("/")[0] == place.path]

    @contextmanager
    def scandir(self, place: Place) -> Iterator[list[Any]]:
        self._step("look")
        yield [SimpleNamespace(name=name, stat=(place / name).stat) for name in self.listdir(place)]

    def statvfs(self, place: Place) -> SimpleNamespace:
        return SimpleNamespace(f_bavail=max(0, self.size - self._used()), f_frsize=1)

    def flock(self, descriptor: int, how: int) -> None:
        file = self._file(descriptor)
        if file.holders - {descriptor}:
            raise BlockingIOError
        file.holders.add(descriptor)

    def inherit(self, descriptor: int) -> int:
        """For a child, which shares the lock."""
        file = self._file(descriptor)
        file.holders.add(found := self._descriptor(file))
        return found

    # Inside

    def _append(self, file: File, data: bytes) -> None:
        half = len(data) // 2
        for piece in (data[:half], data[half:]):
            file.data += piece
            file.written += piece
            interlude, self.interlude = self.interlude, None
            if interlude is not None:
                interlude()

    def _short(self, done: int, error: int) -> int:
        """As the kernel says it: a short write, and the next one says why."""
        if not done:
            raise OSError(error, os.strerror(error))
        self._error = error
        return done

    def _due(self, operation: str) -> Trouble | None:
        found = next((trouble for trouble in self.troubles if trouble.operation == operation), None)
        if found is not None:
            self.troubles.remove(found)
        return found

    def _step(self, operation: str) -> Callable[[], None]:
        """To be called once it is done. Raises OSError or Died."""
        trouble = self._due(operation)
        if trouble is None:
            return lambda: None
        if trouble.error is not None:
            raise OSError(trouble.error, os.strerror(trouble.error))
        if trouble.share < 0.5:
            raise Died
        return _die

    def _used(self) -> int:
        return sum(len(file.data) for file in self.files.values())

    def _descriptor(self, file: File | None) -> int:
        self._next += 1
        self._open[self._next] = file
        return self._next

    def _file(self, descriptor: int) -> File:
        file = self._open[descriptor]
        assert file is not None
        return file


def _die() -> None:
    raise Died


def _stat(file: File) -> SimpleNamespace:
    return SimpleNamespace(st_mode=stat.S_IFREG, st_size=len(file.data), st_nlink=file.links, st_ino=file.number, st_dev=1)
