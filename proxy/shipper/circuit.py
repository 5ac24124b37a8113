"""Circuit: whether Kafka may be given records. Pure: time comes from outside."""

from enum import Enum

# How many records a closed circuit takes at once.
_SLOTS_MAX = 1000


class State(Enum):
    PROBING = "probing"  # it is being found out; after a doubt one record must be acknowledged first
    CLOSED = "closed"
    OPEN = "open"


class Circuit:
    """`probe_s` passes between the failure of one producer and the start of the next."""

    def __init__(self, probe_s: float) -> None:
        self.state = State.PROBING
        self._probe_s = probe_s
        self._retry_at_s = 0.0
        self._doubted = False
        self._probes = 0  # records that may be tried

    def failed(self, now_s: float, *, in_doubt: bool) -> None:
        """`in_doubt`: it had started, and did not acknowledge a record. Starting then proves nothing the next time."""
        self.state, self._probes = State.OPEN, 0
        self._doubted = self._doubted or in_doubt
        self._retry_at_s = now_s + self._probe_s

    def wait_s(self, now_s: float) -> float:
        """Until the next producer may be tried."""
        return max(0.0, self._retry_at_s - now_s)

    def started(self) -> None:
        self.state = State.PROBING if self._doubted else State.CLOSED
        self._probes = 1

    def acknowledged(self) -> None:
        self.state, self._doubted = State.CLOSED, False

    def slots(self) -> int:
        """How many records may be handed over now."""
        return {State.CLOSED: _SLOTS_MAX, State.PROBING: self._probes, State.OPEN: 0}[self.state]

    def took(self) -> None:
        """Records were handed over."""
        self._probes = 0
