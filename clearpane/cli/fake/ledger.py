"""What the provider stated, call by call: the other side of the account."""

from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from clearpane.cli.fake.models import Tokens

# A demo makes some ten calls, a load test some ten thousand.
ENTRIES_MAX = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    id: str | None  # of the answer, as in its body; None for an error
    request_id: str  # as in the answer's header
    path: str
    model: str | None  # as answered
    status: int
    streamed: bool
    delivered: bool  # the last byte was handed to the socket
    usage: dict[str, Any] | None  # as the caller saw it; None: not stated, or never reached
    tokens: Tokens | None  # the same in leaf buckets
    cost: Decimal | None  # USD by the maker's list price
    request_sha256: str
    request_bytes: int

    def json(self) -> dict[str, Any]:
        return {**asdict(self), "cost": None if self.cost is None else format(self.cost, "f")}


@dataclass(slots=True)
class Ledger:
    entries: list[Entry] = field(default_factory=list)
    left_out: int = 0

    def add(self, entry: Entry) -> None:
        if len(self.entries) >= ENTRIES_MAX:
            self.left_out += 1
            return
        self.entries.append(entry)
