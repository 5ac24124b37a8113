"""Ring: the bytes between a worker and its recorder, in memory that both have and neither owns.

One writes, one reads. What was put in survives the writer's death, and what was not settled yet the reader's: the
next one begins there. Neither ever waits for the other, and putting bytes in costs no system call.
"""

import contextlib
import mmap
import os
import threading

# The two positions and the reader's flag, each on a cache line of its own.
_WRITTEN, _SETTLED, _ASLEEP = 0, 8, 16  # in words
_WORD_BYTES = 8
_HEAD_BYTES = mmap.PAGESIZE


class Ring:
    """Positions count all bytes since the beginning. `capacity_bytes` is what may be under way."""

    def __init__(self, descriptor: int, capacity_bytes: int) -> None:
        self.descriptor, self.capacity_bytes = descriptor, capacity_bytes
        self._map = mmap.mmap(descriptor, _HEAD_BYTES + capacity_bytes)
        self._words = memoryview(self._map)[:_HEAD_BYTES].cast("Q")
        self._data = memoryview(self._map)[_HEAD_BYTES:]
        self._barrier = threading.Lock()
        self._barrier.acquire()

    @staticmethod
    def create(capacity_bytes: int) -> "Ring":
        """Raises OSError."""
        descriptor = os.memfd_create("clearpane-notes")
        os.truncate(descriptor, _HEAD_BYTES + capacity_bytes)
        return Ring(descriptor, capacity_bytes)

    def close(self) -> None:
        """Of this process's view; the memory lives as long as another has it."""
        self._words.release()
        self._data.release()
        self._map.close()

    # The writer's side

    def put(self, data: bytes) -> bool:
        """False, and nothing done, without room for all of it."""
        words, capacity = self._words, self.capacity_bytes
        written, size = words[_WRITTEN], len(data)
        if size > capacity - (written - words[_SETTLED]):
            return False
        at = written % capacity
        first = capacity - at
        if size <= first:
            self._data[at : at + size] = data
        else:
            self._data[at:] = data[:first]
            self._data[: size - first] = data[first:]
        self._publish(_WRITTEN, written + size)
        return True

    @property
    def used_bytes(self) -> int:
        """Put in and not settled."""
        return self._words[_WRITTEN] - self._words[_SETTLED]

    def release(self, place: int, size: int) -> None:
        """The system may have these bytes' memory until they are written again. Of the writer, while nothing is under way."""
        size = min(size, self.capacity_bytes - place)
        with contextlib.suppress(OSError):
            self._map.madvise(mmap.MADV_REMOVE, _HEAD_BYTES + place, size)

    @property
    def reader_sleeps(self) -> bool:
        self._order()
        return self._words[_ASLEEP] != 0

    # The reader's side

    @property
    def settled(self) -> int:
        return self._words[_SETTLED]

    @property
    def written(self) -> int:
        return self._words[_WRITTEN]

    def read(self, start: int, end: int) -> bytes:
        """The bytes between two positions, `end` at most `written`. They keep their room until they are settled."""
        self._order()
        at = start % self.capacity_bytes
        first = min(end - start, self.capacity_bytes - at)
        return bytes(self._data[at : at + first]) + bytes(self._data[: end - start - first])

    def settle(self, position: int) -> None:
        """All bytes before it are taken care of."""
        self._publish(_SETTLED, position)

    def sleep(self, asleep: bool) -> None:
        self._publish(_ASLEEP, int(asleep))
        self._order()

    def _publish(self, word: int, value: int) -> None:
        """The other side must not see the new position before the bytes."""
        self._order()
        self._words[word] = value

    def _order(self) -> None:
        """A lock let go and taken again: no processor moves a read or a write across both."""
        self._barrier.release()
        self._barrier.acquire()
