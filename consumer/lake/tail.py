"""The end of a log's chain: where the next object goes, and what `heads/<log>.json` says of it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace

import orjson

from clearpane.contract.members import Manifest

# A first copy may follow a second one only while a broker still holds its request: seconds.
REWRITTEN_KEPT_MS = 3_600_000
REWRITTEN_MAX = 20_000


class ChainBroken(Exception):
    """The lake holds something that no writer of this protocol leaves: writing on would hide it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    log: str
    genesis: int  # the log's first offset that the chain covers
    end: int  # the next object's start
    key: str | None = None  # of the last object
    sha256: str | None = None
    # Calls that entered the chain by a second copy -> when (ms): their first copy may still come.
    rewritten: Mapping[str, int] = field(default_factory=dict)

    def after(self, manifest: Manifest, key: str, second_copies: Iterable[str], ingested_ms: int) -> "Tail":
        """The tail behind one more object, written at `ingested_ms`."""
        kept = {name: ms for name, ms in self.rewritten.items() if ms > ingested_ms - REWRITTEN_KEPT_MS}
        kept |= dict.fromkeys(second_copies, ingested_ms)
        bounded = dict(list(kept.items())[-REWRITTEN_MAX:])
        return replace(self, end=manifest.end, key=key, sha256=manifest.sha256, rewritten=bounded)

    def to_json(self) -> bytes:
        return orjson.dumps({**asdict(self), "rewritten": [[name, ms] for name, ms in self.rewritten.items()]})

    @staticmethod
    def from_json(data: bytes) -> "Tail":
        """Raises ValueError for anything but what to_json makes."""
        try:
            found = orjson.loads(data)
            rewritten = {str(name): int(ms) for name, ms in found.pop("rewritten")}
            tail = Tail(**found, rewritten=rewritten)
        except (orjson.JSONDecodeError, TypeError, AttributeError, KeyError) as error:
            raise ValueError("not a head of this version") from error
        if not (isinstance(tail.genesis, int) and isinstance(tail.end, int) and 0 <= tail.genesis <= tail.end):
            raise ValueError("not a head of this version")
        return tail
