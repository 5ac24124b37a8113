"""Folder: names inside `<root>/<spool id>/`, who holds its lock, and how it is taken away again."""

import contextlib
import fcntl
import os
import re
import shutil
from pathlib import Path

from clearpane.contract.identifiers import is_spool_id

_SEGMENT = re.compile(r"([0-9]{20})\.seg")
_LOCK = "lock"


def segment_path(folder: Path, segment: int) -> Path:
    return folder / f"{segment:020d}.seg"


def segment_of(name: str) -> int | None:
    """The number of a segment's first frame; None for a file that is not ours."""
    found = _SEGMENT.fullmatch(name)
    return int(found[1]) if found else None


def segments(folder: Path) -> list[int]:
    """Oldest first; [] when the folder is gone."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - the reader asks for this often, and needs names only
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(number for name in names if (number := segment_of(name)) is not None)


def spools(root: Path) -> list[Path]:
    """The spools under `root`, oldest first: their ids begin with the time. A file of such a name is not ours."""
    try:
        return sorted(path for path in root.iterdir() if is_spool_id(path.name) and path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


class Claim:
    """The lock of one spool. Whoever holds it is its living writer, or the one that adopts it."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self.folder = folder
        self._descriptor = descriptor

    @property
    def descriptor(self) -> int:
        """For a child that shares the lock."""
        return self._descriptor

    def stands(self) -> bool:
        """False when somebody removed the lock's file: the lock then locks nobody out."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), (self.folder / _LOCK).stat())
        except (FileNotFoundError, NotADirectoryError):
            return False

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def claim(folder: Path) -> Claim | None:
    """The lock, when nobody holds it and the folder is there. Raises OSError only for a disk that refuses."""
    path = folder / _LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        return None
    held = Claim(folder, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who held it before us may have removed the spool meanwhile.
        ours = held.stands()
    except BlockingIOError:
        ours = False
    except OSError:
        held.release()
        raise
    if ours:
        return held
    held.release()
    return None


def is_held(folder: Path) -> bool:
    """Whether a living writer, or the shipper that has adopted it, holds the lock. Raises OSError for a disk that refuses."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        # Shared and for a moment: two who look do not see one another.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def create(root: Path, spool_id: str) -> Claim:
    """Makes the spool's folder and holds its lock. Raises OSError.

    The folder gets its name only after the lock is held: it can't be adopted in between.
    """
    staging, folder = root / f".{spool_id}", root / spool_id
    staging.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = claim(staging)
    if held is None:
        raise BlockingIOError(f"somebody else holds {staging}")
    try:
        staging.rename(folder)
    except OSError:
        held.release()
        with contextlib.suppress(OSError):
            shutil.rmtree(staging)
        raise
    held.folder = folder
    return held


def sync(folder: Path) -> None:
    """Makes the names in the folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def drop_segment(folder: Path, segment: int) -> None:
    """For segments that are settled; never the newest of a living spool."""
    segment_path(folder, segment).unlink(missing_ok=True)


def drop_spool(folder: Path) -> None:
    """For a claimed spool. The segments go before all else, the lock last: cut short anywhere, nothing is sent again."""
    for segment in segments(folder):
        with contextlib.suppress(IsADirectoryError):
            drop_segment(folder, segment)
    for path in _others(folder):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    (folder / _LOCK).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()


def _others(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.name != _LOCK]
    except FileNotFoundError:
        return []
