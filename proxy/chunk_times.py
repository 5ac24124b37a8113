"""When the pieces of an answer came: marks for the first ones, gaps for more, in bounded space."""

# Enough to place the first tokens of any answer; the rest is described by the gaps' quantiles.
MARKS_MAX = 256
GAPS_MAX = 4096


class ChunkTimes:
    __slots__ = ("_gaps", "_last_ms", "_marks", "count", "gap_max_ms")

    def __init__(self) -> None:
        self.count = 0
        self.gap_max_ms: float | None = None
        self._marks: list[tuple[float, int]] = []  # (ms since the call was received, body bytes so far)
        self._gaps: list[float] = []
        self._last_ms = 0.0

    def add(self, at_ms: float, body_bytes: int) -> None:
        count = self.count
        if count < MARKS_MAX:
            self._marks.append((at_ms, body_bytes))
        if count:
            gap_ms = at_ms - self._last_ms
            if self.gap_max_ms is None or gap_ms > self.gap_max_ms:
                self.gap_max_ms = gap_ms
            if count <= GAPS_MAX:
                self._gaps.append(gap_ms)
        self.count = count + 1
        self._last_ms = at_ms

    @property
    def first_ms(self) -> float | None:
        return self._marks[0][0] if self._marks else None

    def noted(self) -> tuple[int, list[tuple[float, int]], list[float], float | None, float]:
        """Pieces, marks, gaps (ms, the first GAPS_MAX), longest gap of all, time of the last piece."""
        return self.count, self._marks, self._gaps, self.gap_max_ms, self._last_ms


def gap_quantile_ms(gaps: list[float], share: float) -> float | None:
    """Nearest rank; None without a gap."""
    if not gaps:
        return None
    ordered = sorted(gaps)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)
