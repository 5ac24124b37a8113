"""A bounded copy of a body beside its stream: it keeps references and counts; beyond the bound, where they end, it hashes."""

import hashlib
from collections.abc import Callable

# Pieces of a call that may last for hours; each costs memory beside its bytes.
TIMED_PIECES_MAX = 64 << 10
# Such calls keep nothing more when so much of the budget is used: else a few of them would leave none to all others.
TIMED_SHARE = 0.5


class Budget:
    """Captured bytes that all open calls of a worker hold together."""

    __slots__ = ("bytes_max", "used")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.used = 0


class Capture:
    """One side of one call. `add` never fails and never copies; `close` gives the room back to the budget."""

    __slots__ = ("_budget", "_bytes_max", "_hash", "_kept", "_pieces", "seen", "truncated")

    def __init__(self, bytes_max: int, budget: Budget) -> None:
        self.seen = 0
        self.truncated = False
        self._bytes_max = bytes_max
        self._budget = budget
        self._pieces: list[bytes] = []
        self._kept = 0
        self._hash: hashlib._Hash | None = None

    def add(self, piece: bytes) -> None:
        size = len(piece)
        self.seen += size
        if not self.truncated:
            room = min(self._bytes_max - self._kept, self._budget.bytes_max - self._budget.used)
            if size <= room:
                self._keep(piece)
                return
            self.truncated = True
            self._hash = hashlib.sha256(b"".join(self._pieces))
            if room > 0:
                self._keep(piece[:room])
        assert self._hash is not None
        self._hash.update(piece)

    def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._kept += len(piece)
        self._budget.used += len(piece)

    def timed(self, clock_ms: Callable[[], float]) -> "Timed":
        """An empty one within the same bounds."""
        return Timed(self._bytes_max, self._budget, clock_ms)

    def close(self) -> tuple[int, bool, str | None, list[bytes]]:
        """Bytes seen; whether the pieces are only the first of them; then, and only then, the digest of all; the pieces."""
        self._budget.used -= self._kept
        self._kept = 0
        return self.seen, self.truncated, self._hash.hexdigest() if self._hash is not None else None, self._pieces


class Timed(Capture):
    """A capture that knows when each kept piece came. Bounded by TIMED_PIECES_MAX and TIMED_SHARE, too."""

    __slots__ = ("_clock_ms", "times_ms")

    def __init__(self, bytes_max: int, budget: Budget, clock_ms: Callable[[], float]) -> None:
        super().__init__(bytes_max, budget)
        self._clock_ms = clock_ms
        self.times_ms: list[float] = []

    def add(self, piece: bytes) -> None:
        budget = self._budget
        if len(self.times_ms) >= TIMED_PIECES_MAX or budget.used + len(piece) > budget.bytes_max * TIMED_SHARE:
            self._bytes_max = self._kept
        elif not self.truncated:
            self.times_ms.append(self._clock_ms())
        super().add(piece)
