"""Ranges: a set of whole numbers that are mostly consecutive. Pure."""

from bisect import bisect_right
from collections.abc import Iterable


class Ranges:
    """Kept as sorted, disjoint, inclusive ranges, so that a million settled sequences cost a handful of numbers."""

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in pairs:
            self.add(first, last)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def add(self, first: int, last: int | None = None) -> None:
        """Joins [first, last] with every range that it touches."""
        last = first if last is None else last
        low = bisect_right(self._lasts, first - 2)  # the first range that ends at first - 1 or later
        high = bisect_right(self._firsts, last + 1)
        if low < high:
            first, last = min(first, self._firsts[low]), max(last, self._lasts[high - 1])
        self._firsts[low:high], self._lasts[low:high] = [first], [last]

    @property
    def count(self) -> int:
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    @property
    def end(self) -> int:
        """Behind the highest number."""
        return self._lasts[-1] + 1 if self._lasts else 0

    def pairs(self) -> list[tuple[int, int]]:
        return list(zip(self._firsts, self._lasts, strict=True))
