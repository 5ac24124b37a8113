"""The end of a log's chain: where the next object goes, and what `heads/<log>.json` says of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import orjson

from clearpane.contract.members import Manifest

# A first copy may follow a second one only while a broker still holds its request: seconds.
REWRITTEN_KEPT_MS = 3_600_000
REWRITTEN_MAX = 20_000


class ChainBroken(Exception):
    """The lake holds something that no writer of this protocol leaves: writing on would hide it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What later records have to know of an object."""

    ids: list[str]
    second_copies: list[str]
    ingested_ms: int  # 0: an object without records
    last_offset: int | None  # of the last id


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    log: str
    genesis: int  # the log's first offset that the chain covers
    end: int  # the next object's start
    key: str | None = None  # of the last object
    sha256: str | None = None
    # The last call in the chain, and its offset: what a topic that was made again does not have there.
    last_offset: int | None = None
    last_id: str | None = None
    # Calls that entered the chain by a second copy -> when (ms): their first copy may still come.
    rewritten: Mapping[str, int] = field(default_factory=dict)

    def after(self, manifest: Manifest, key: str, written: Written) -> "Tail":
        """The tail behind one more object."""
        kept = {name: ms for name, ms in self.rewritten.items() if ms > written.ingested_ms - REWRITTEN_KEPT_MS}
        kept |= dict.fromkeys(written.second_copies, written.ingested_ms)
        tail = replace(self, end=manifest.end, key=key, sha256=manifest.sha256, rewritten=dict(list(kept.items())[-REWRITTEN_MAX:]))
        if not written.ids:
            return tail
        return replace(tail, last_offset=written.last_offset, last_id=written.ids[-1])

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
