"""An epoll selector that hands the event loop few ready sockets at a time, and of those that carry bulk the fewest.

asyncio serves every socket that is ready before it goes on with what these led to. With a thousand busy streams such a
turn takes 50 ms, and a new call needs eight turns until its request is on its way. epoll hands out what is ready in
turn, however few it is asked for at once; so with short turns a call waits for the sockets before it, and for no more.
A hundred chunks that come at once are three milliseconds all the same. So streams have an epoll of their own, which is
one descriptor among the others, and a request or the beginning of an answer overtakes them.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from select import EPOLLIN, EPOLLOUT, epoll
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector, SelectorKey
from typing import Any, Protocol

# A turn costs some microseconds beside what it serves.
READY_MAX = 32
# Of bulk; or as many as of the others, if that is more, so that calls without end do not starve the streams.
BULK_READY_MIN = 8


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


_FileObject = int | _HasFileno


class Selector(BaseSelector):
    """For asyncio.SelectorEventLoop."""

    def __init__(self) -> None:
        self._epoll, self._bulk_epoll = epoll(), epoll()
        self._epoll.register(self._bulk_epoll.fileno(), EPOLLIN)
        self._bulk: set[int] = set()
        self._keys: dict[int, SelectorKey] = {}
        self._map = _ByFile(self._keys)

    def register(self, fileobj: _FileObject, events: int, data: Any = None) -> SelectorKey:
        """Raises KeyError when it is registered already, ValueError for what is no open file."""
        descriptor = _descriptor(fileobj)
        if descriptor in self._keys:
            raise KeyError(f"{fileobj!r} is registered already")
        self._lane(descriptor).register(descriptor, _mask(events))
        return self._keep(fileobj, descriptor, events, data)

    def modify(self, fileobj: _FileObject, events: int, data: Any = None) -> SelectorKey:
        """Raises KeyError when it is not registered."""
        descriptor = _registered(self._keys, fileobj)
        if self._keys[descriptor].events != events:
            self._lane(descriptor).modify(descriptor, _mask(events))
        return self._keep(fileobj, descriptor, events, data)

    def unregister(self, fileobj: _FileObject) -> SelectorKey:
        """Raises KeyError when it is not registered."""
        key = self._keys.pop(_registered(self._keys, fileobj))
        with contextlib.suppress(OSError):  # it is closed already
            self._lane(key.fd).unregister(key.fd)
        return key

    def bulk(self, descriptor: int, on: bool) -> None:
        """From now on others overtake this socket, or no longer. Whoever says yes says no when the socket is gone."""
        if (descriptor in self._bulk) == on:
            return
        key = self._keys.get(descriptor)
        if key is not None:
            self._lane(descriptor).unregister(descriptor)
        (self._bulk.add if on else self._bulk.discard)(descriptor)
        if key is not None:
            self._lane(descriptor).register(descriptor, _mask(key.events))

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """At most READY_MAX of those that are ready, and some of bulk behind them; the others come first next time."""
        wait_s = -1.0 if timeout is None else math.ceil(max(timeout, 0) * 1e3) * 1e-3  # rounded up: epoll knows milliseconds
        ready: list[tuple[SelectorKey, int]] = []
        with contextlib.suppress(InterruptedError):
            if self._tell(self._epoll.poll(wait_s, READY_MAX), ready):
                self._tell(self._bulk_epoll.poll(0, max(BULK_READY_MIN, len(ready))), ready)
        return ready

    def _tell(self, polled: list[tuple[int, int]], ready: list[tuple[SelectorKey, int]]) -> bool:
        """Whether there was one that nobody registered: it is the epoll of bulk."""
        unknown, keys = False, self._keys
        for descriptor, found in polled:
            key = keys.get(descriptor)
            if key is None:
                unknown = True
            else:
                ready.append((key, _events(found) & key.events))
        return unknown

    def get_key(self, fileobj: _FileObject) -> SelectorKey:
        """Raises KeyError when it is not registered."""
        return self._keys[_registered(self._keys, fileobj)]

    def get_map(self) -> Mapping[_FileObject, SelectorKey]:
        return self._map

    def close(self) -> None:
        self._epoll.close()
        self._bulk_epoll.close()
        self._keys.clear()

    def _lane(self, descriptor: int) -> epoll:
        return self._bulk_epoll if descriptor in self._bulk else self._epoll

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


def _events(found: int) -> int:
    """An error or a hang-up is told to whoever waits, reader or writer."""
    return (EVENT_READ if found & ~EPOLLOUT else 0) | (EVENT_WRITE if found & ~EPOLLIN else 0)


def _mask(events: int) -> int:
    return (EPOLLIN if events & EVENT_READ else 0) | (EPOLLOUT if events & EVENT_WRITE else 0)
