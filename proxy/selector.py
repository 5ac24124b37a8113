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
# Of bulk, before the others are looked at again; or as many as of the others, if that is more, so that calls without end do
# not starve the streams.
BULK_READY_MIN = 4
# How often a turn does so.
BULK_PARTS_MAX = 4


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


_FileObject = int | _HasFileno


class Watcher(Protocol):
    """Who is told of a socket in `select` itself, without asyncio's handles."""

    def ready(self, found: int) -> None:
        """`found`: epoll's bits. Raises nothing."""


class Selector(BaseSelector):
    """For asyncio.SelectorEventLoop."""

    def __init__(self) -> None:
        self._epoll, self._bulk_epoll = epoll(), epoll()
        self._bulk_descriptor = self._bulk_epoll.fileno()
        self._epoll.register(self._bulk_descriptor, EPOLLIN)
        self._bulk: set[int] = set()
        self._masks: dict[int, int] = {}  # of all that an epoll has
        self._keys: dict[int, SelectorKey] = {}
        self._watchers: dict[int, Watcher] = {}
        self._map = _ByFile(self._keys)

    def register(self, fileobj: _FileObject, events: int, data: Any = None) -> SelectorKey:
        """Raises KeyError when it is registered already, ValueError for what is no open file."""
        descriptor = _descriptor(fileobj)
        if descriptor in self._keys:
            raise KeyError(f"{fileobj!r} is registered already")
        self._ask(descriptor, _mask(events))
        return self._keep(fileobj, descriptor, events, data)

    def modify(self, fileobj: _FileObject, events: int, data: Any = None) -> SelectorKey:
        """Raises KeyError when it is not registered."""
        descriptor = self.get_key(fileobj).fd
        self._ask(descriptor, _mask(events))
        return self._keep(fileobj, descriptor, events, data)

    def unregister(self, fileobj: _FileObject) -> SelectorKey:
        """Raises KeyError when it is not registered."""
        key = self._keys.pop(_registered(self._keys, fileobj))
        self._ask(key.fd, 0)
        return key

    def watch(self, descriptor: int, watcher: Watcher, mask: int) -> None:
        """From now on `watcher` is told of these (epoll's bits) and of the end; of nothing more with 0. Raises OSError."""
        self._ask(descriptor, mask)
        if mask:
            self._watchers[descriptor] = watcher
        else:
            self._watchers.pop(descriptor, None)

    def bulk(self, descriptor: int, on: bool) -> None:
        """From now on others overtake this socket, or no longer. Whoever says yes says no when the socket is gone."""
        if (descriptor in self._bulk) == on:
            return
        mask = self._masks.get(descriptor, 0)
        self._ask(descriptor, 0)
        (self._bulk.add if on else self._bulk.discard)(descriptor)
        self._ask(descriptor, mask)

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Some of those that are ready, and of bulk a few behind them; the others come first next time.

        While only watchers are ready, and few beside bulk, the next time is in the same turn: asyncio has no part in it.
        """
        wait_s = -1.0 if timeout is None else math.ceil(max(timeout, 0) * 1e3) * 1e-3  # rounded up: epoll knows milliseconds
        others: list[tuple[int, int]] = []
        for _ in range(BULK_PARTS_MAX):
            polled = self._epoll.poll(wait_s, READY_MAX)
            if not self._tell(polled, others):
                break
            self._tell(self._bulk_epoll.poll(0, max(BULK_READY_MIN, len(polled) - 1)), others)
            if others or len(polled) > BULK_READY_MIN:
                break
            wait_s = 0.0
        # Looked up behind all watchers: what these have changed of asyncio's sockets counts.
        return [(key, _events(found) & key.events) for descriptor, found in others if (key := self._keys.get(descriptor)) is not None]

    def _tell(self, polled: list[tuple[int, int]], others: list[tuple[int, int]]) -> bool:
        """Whether bulk is ready, too. A watcher may end others that were polled with it: these are not told any more."""
        bulk, watchers = False, self._watchers
        for descriptor, found in polled:
            watcher = watchers.get(descriptor)
            if watcher is not None:
                watcher.ready(found)
            elif descriptor == self._bulk_descriptor:
                bulk = True
            else:
                others.append((descriptor, found))
        return bulk

    def get_key(self, fileobj: _FileObject) -> SelectorKey:
        """Raises KeyError when it is not registered."""
        return self._keys[_registered(self._keys, fileobj)]

    def get_map(self) -> Mapping[_FileObject, SelectorKey]:
        return self._map

    def close(self) -> None:
        self._epoll.close()
        self._bulk_epoll.close()
        self._keys.clear()
        self._watchers.clear()

    def _ask(self, descriptor: int, mask: int) -> None:
        """Raises OSError where it is no open file; what is closed can still be taken out."""
        lane = self._bulk_epoll if descriptor in self._bulk else self._epoll
        before = self._masks.get(descriptor, 0)
        if not mask:
            self._masks.pop(descriptor, None)
            if before:
                with contextlib.suppress(OSError):  # it is closed already
                    lane.unregister(descriptor)
        elif not before:
            lane.register(descriptor, mask)
            self._masks[descriptor] = mask
        elif before != mask:
            lane.modify(descriptor, mask)
            self._masks[descriptor] = mask

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
