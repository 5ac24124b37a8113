"""Backoff: how long to wait before the next try. Pure."""

import random

_BASE_S = 0.1
_MOST_S = 10.0
_RETRY_AFTER_S_MAX = 60.0


class Backoff:
    """Exponential with full jitter; what the other side asks for is a lower bound, itself bounded."""

    def __init__(self) -> None:
        self.failures = 0

    def succeeded(self) -> None:
        self.failures = 0

    def failed(self, retry_after_s: float = 0.0) -> float:
        """Seconds to wait."""
        ceiling_s = min(_MOST_S, _BASE_S * 2 ** min(self.failures, 10))
        self.failures += 1
        return min(max(retry_after_s, 0.0), _RETRY_AFTER_S_MAX) + random.uniform(0, ceiling_s)  # noqa: S311 - no secret hangs on it
