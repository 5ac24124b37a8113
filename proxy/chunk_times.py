"""When the pieces of an answer came: marks for the first ones, gap quantiles for all, in bounded space."""

from array import array

# Enough to place the first tokens of any answer; the rest is described by the quantiles.
MARKS_MAX = 256
GAPS_MAX = 4096


class ChunkTimes:
    __slots__ = ("_gaps", "_last_ms", "count", "gap_max_ms", "marks")

    def __init__(self) -> None:
        self.count = 0
        self.marks: list[tuple[float, int]] = []  # (ms since the call was received, body bytes so far)
        self.gap_max_ms: float | None = None
        self._gaps = array("f")
        self._last_ms = 0.0

    def add(self, at_ms: float, body_bytes: int) -> None:
        if self.count < MARKS_MAX:
            self.marks.append((round(at_ms, 3), body_bytes))
        if self.count:
            gap_ms = at_ms - self._last_ms
            if self.gap_max_ms is None or gap_ms > self.gap_max_ms:
                self.gap_max_ms = gap_ms
            if len(self._gaps) < GAPS_MAX:
                self._gaps.append(gap_ms)
        self.count += 1
        self._last_ms = at_ms

    @property
    def last_ms(self) -> float | None:
        return self._last_ms if self.count else None

    def gap_quantile_ms(self, share: float) -> float | None:
        """Nearest rank over the first GAPS_MAX gaps; None with fewer than two pieces."""
        if not self._gaps:
            return None
        ordered = sorted(self._gaps)
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)
