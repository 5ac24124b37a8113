"""How long the fake model takes; the same for the same request."""

import asyncio
from dataclasses import dataclass

_FIRST_MS = (180, 420)
_TOKEN_MS = (10, 40)


@dataclass(frozen=True, slots=True)
class Pace:
    """`scale` 1 is a real model's pace, 0 no delay at all."""

    scale: float = 1.0

    def first_s(self, seed: str) -> float:
        """Request to first token."""
        return self._between(_FIRST_MS, seed[:2])

    def token_s(self, seed: str, index: int) -> float:
        """One token to the next."""
        at = (2 * index) % (len(seed) - 2)
        return self._between(_TOKEN_MS, seed[at : at + 2])

    def _between(self, bounds_ms: tuple[int, int], digits: str) -> float:
        low, high = bounds_ms
        return self.scale * (low + (high - low) * int(digits, 16) / 255) / 1000


async def wait(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)
