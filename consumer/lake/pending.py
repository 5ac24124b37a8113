"""What was read behind a log's tail and is not in the lake yet, and where it is cut into objects. Pure."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from consumer.lake.messages import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    records_max: int
    bytes_max: int  # of envelopes


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The next object: it covers the log up to `end`."""

    candidates: list[Candidate]
    end: int
    anchor_ms: int
    needed: bool  # must be written even if all of it turn out to be copies


@dataclass(slots=True)
class Pending:
    """Candidates in [tail, end) of one log.

    The anchor is the first candidate behind the tail, kept even when it was a copy: its timestamp makes the
    key, so two writers that disagree about copies still meet at one key.
    """

    end: int
    candidates: list[Candidate] = field(default_factory=list)
    covering: bool = False  # the source forgets what was acknowledged: copies are covered too, if by an empty object
    bytes: int = 0
    anchor_ms: int | None = None

    def add(self, offset: int, candidate: Candidate | None) -> None:
        """In the order of the log. What lies below `end` was read before, and is ignored."""
        if offset < self.end:
            return
        self.end = offset + 1
        if candidate is None:
            return
        if self.anchor_ms is None:
            self.anchor_ms = candidate.timestamp_ms
        self.candidates.append(candidate)
        self.bytes += candidate.size

    def cut(self, limits: Limits) -> Cut | None:
        """The next object's content; None when nothing waits."""
        if not self.candidates or self.anchor_ms is None:
            return None
        size = 0
        for number, candidate in enumerate(self.candidates):
            crossed = _hour(candidate.timestamp_ms) > _hour(self.anchor_ms)
            full = number > 0 and (number >= limits.records_max or size + candidate.size > limits.bytes_max)
            if crossed or full:
                needed = crossed or self.covering
                return Cut(candidates=self.candidates[:number], end=candidate.offset, anchor_ms=self.anchor_ms, needed=needed)
            size += candidate.size
        return Cut(candidates=self.candidates, end=self.end, anchor_ms=self.anchor_ms, needed=self.covering)

    def drop(self, cut: Cut) -> None:
        """All of it were copies: nothing to write, so the tail and the anchor stay."""
        self._keep([c for c in self.candidates if c.offset >= cut.end])

    def advance(self, tail: int) -> None:
        """The lake covers the log up to `tail` now, whoever wrote it."""
        self._keep([c for c in self.candidates if c.offset >= tail])
        self.end = max(self.end, tail)
        self.anchor_ms = self.candidates[0].timestamp_ms if self.candidates else None

    def _keep(self, candidates: list[Candidate]) -> None:
        self.candidates = candidates
        self.bytes = sum(c.size for c in candidates)


def _hour(timestamp_ms: int) -> datetime:
    return datetime.fromtimestamp(timestamp_ms / 1000, tz=UTC).replace(minute=0, second=0, microsecond=0)
