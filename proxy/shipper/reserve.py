"""A reserve of disk space for the journal: on a full disk nothing could be written down, so nothing sent, so nothing freed."""

import contextlib
import errno
import os
from pathlib import Path

# Some ten thousand decisions; each that is carried out frees the space of its record.
RESERVE_BYTES = 4 << 20
# It is only made, or made again, while this many times its size is free.
_ROOM = 8

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Reserve:
    """One file in the data folder. Neither method raises."""

    def __init__(self, data: Path, size: int = RESERVE_BYTES) -> None:
        self._path = data / "reserve"
        self._size = size

    def keep(self) -> None:
        """Has the space set aside, if there is plenty."""
        with contextlib.suppress(OSError):
            if self._path.exists():
                return
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize < _ROOM * self._size:
                return
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
            finally:
                os.close(descriptor)

    def give(self) -> bool:
        """Frees the space. False if there was none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
