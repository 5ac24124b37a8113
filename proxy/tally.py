"""Counts of a worker's calls in plain integers, carried into the metrics once a second.

A metric shared between processes costs microseconds each time; a call touches ten of them.
"""

from bisect import bisect_left
from collections import Counter

from prometheus_client import Histogram

from proxy import metrics
from proxy.call import Call


class Tally:
    """`admitted` and `ended` are on the path of a call; `tell` is not."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._admitted = 0
        self._calls: Counter[tuple[str, int, str]] = Counter()  # by upstream, first digit of the status, end
        self._refused: Counter[str] = Counter()
        self._connects: Counter[str] = Counter()
        self._request_bytes = self._response_bytes = 0
        self._added = Buckets(metrics.ADDED)
        self._first_byte = Buckets(metrics.FIRST_BYTE)

    def admitted(self) -> None:
        self.in_flight += 1
        self._admitted += 1

    def connected(self, upstream: str) -> None:
        self._connects[upstream] += 1

    def ended(self, call: Call) -> None:
        status, route, end = call.status, call.plan.route, call.end_reason or "none"
        self.in_flight -= 1
        self._calls[route.upstream.name if route is not None else "none", status // 100 if status else 0, end] += 1
        self._request_bytes += call.request.seen
        self._response_bytes += call.response.seen
        if end == "rejected" and call.failure is not None:
            self._refused[call.failure.type] += 1
        if call.upstream_started_ms is not None:
            self._added.observe(call.proxy_ms / 1000)
        if (first_byte_ms := call.chunk_times.first_ms) is not None:
            self._first_byte.observe(first_byte_ms / 1000)

    def tell(self, connections: int) -> None:
        for (upstream, status, end), count in self._calls.items():
            metrics.CALLS.labels(upstream, f"{status}xx" if status else "none", end).inc(count)
        for reason, count in self._refused.items():
            metrics.REFUSED.labels(reason).inc(count)
        for upstream, count in self._connects.items():
            metrics.UPSTREAM_CONNECTS.labels(upstream).inc(count)
        metrics.ADMITTED.inc(self._admitted)
        metrics.REQUEST_BYTES.inc(self._request_bytes)
        metrics.RESPONSE_BYTES.inc(self._response_bytes)
        metrics.IN_FLIGHT.set(self.in_flight)
        metrics.CONNECTIONS.set(connections)
        self._added.tell()
        self._first_byte.tell()
        self._calls.clear()
        self._refused.clear()
        self._connects.clear()
        self._admitted = self._request_bytes = self._response_bytes = 0


class Buckets:
    """Observations of one histogram since they were last told. tests/proxy/test_tally.py pins what is taken from inside it."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._bounds = [float(bound) for bound in histogram._upper_bounds]  # noqa: SLF001
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def tell(self) -> None:
        for bucket, count in zip(self._histogram._buckets, self._counts, strict=True):  # noqa: SLF001
            if count:
                bucket.inc(count)
        self._histogram._sum.inc(self._sum)  # noqa: SLF001
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
