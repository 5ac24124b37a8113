"""An epoll selector that hands the event loop few ready sockets at a time.

asyncio serves every socket that is ready before it goes on with what these led to. With a thousand busy streams such a
turn takes 50 ms, and a new call needs eight turns until its request is on its way. epoll hands out what is ready in
turn, however few it is asked for at once; so with short turns a call waits for the sockets before it, and for no more.
"""

import contextlib
import math
import select
from collections.abc import Iterator, Mapping
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector, SelectorKey
from typing import Any, Protocol

# A turn costs some microseconds beside what it serves.
READY_MAX = 32


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


_FileObject = int | _HasFileno
_READ_ONLY, _WRITE_ONLY = select.EPOLLIN, select.EPOLLOUT


class Selector(BaseSelector):
    """For asyncio.SelectorEventLoop."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._keys: dict[int, SelectorKey] = {}
        self._map = _ByFile(self._keys)

    def register(self, fileobj: _FileObject, events: int, data: Any = None) -> SelectorKey:
        """Raises KeyError when it is registered already, ValueError for what is no open file."""
        descriptor = _descriptor(fileobj)
        if descriptor in self._keys:
            raise KeyError(f"{fileobj!r} is registered already")
        self._epoll.register(descriptor, _mask(events))
        return self._keep(fileobj, descriptor, events, data)

    def modify(self, fileobj: _FileObject, events: int, data: Any = None) -> SelectorKey:
        """Raises KeyError when it is not registered."""
        descriptor = _registered(self._keys, fileobj)
        if self._keys[descriptor].events != events:
            self._epoll.modify(descriptor, _mask(events))
        return self._keep(fileobj, descriptor, events, data)

    def unregister(self, fileobj: _FileObject) -> SelectorKey:
        """Raises KeyError when it is not registered."""
        key = self._keys.pop(_registered(self._keys, fileobj))
        with contextlib.suppress(OSError):  # it is closed already
            self._epoll.unregister(key.fd)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """At most READY_MAX of those that are ready; the others come first next time."""
        wait_s = -1.0 if timeout is None else math.ceil(max(timeout, 0) * 1e3) * 1e-3  # rounded up: epoll knows milliseconds
        keys, ready = self._keys, []
        with contextlib.suppress(InterruptedError):
            for descriptor, found in self._epoll.poll(wait_s, READY_MAX):
                key = keys.get(descriptor)
                if key is not None:
                    # An error or a hang-up is told to whoever waits, reader or writer.
                    events = (EVENT_READ if found & ~_WRITE_ONLY else 0) | (EVENT_WRITE if found & ~_READ_ONLY else 0)
                    ready.append((key, events & key.events))
        return ready

    def get_key(self, fileobj: _FileObject) -> SelectorKey:
        """Raises KeyError when it is not registered."""
        return self._keys[_registered(self._keys, fileobj)]

    def get_map(self) -> Mapping[_FileObject, SelectorKey]:
        return self._map

    def close(self) -> None:
        self._epoll.close()
        self._keys.clear()

    def _keep(self, fileobj: _FileObject, descriptor: int, events: int, data: Any) -> SelectorKey:
        key = self._keys[descriptor] = SelectorKey(fileobj, descriptor, events, data)
        return key


class _ByFile(Mapping[_FileObject, SelectorKey]):
    """Keys by file object or descriptor, as asyncio looks for them."""

    def __init__(self, keys: dict[int, SelectorKey]) -> None:
        self._keys = keys

    def __getitem__(self, fileobj: _FileObject) -> SelectorKey:
        return self._keys[_registered(self._keys, fileobj)]

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _descriptor(fileobj: _FileObject) -> int:
    found = fileobj if isinstance(fileobj, int) else fileobj.fileno()
    if found < 0:
        raise ValueError(f"{fileobj!r} is not open")
    return found


def _registered(keys: Mapping[int, SelectorKey], fileobj: _FileObject) -> int:
    """Its descriptor, also when it was closed first. Raises ValueError for a closed file that is not registered."""
    try:
        return _descriptor(fileobj)
    except ValueError:
        for key in keys.values():
            if key.fileobj is fileobj:
                return key.fd
        raise


def _mask(events: int) -> int:
    return (_READ_ONLY if events & EVENT_READ else 0) | (_WRITE_ONLY if events & EVENT_WRITE else 0)
