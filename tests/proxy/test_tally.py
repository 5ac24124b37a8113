import random

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from proxy.tally import Buckets


def test_buckets_told_at_once_equal_single_observations() -> None:
    random.seed(7)
    values = [random.random() * 3 for _ in range(500)] + [0.5, 1.0, 0.0, 99.0]
    one, many = CollectorRegistry(), CollectorRegistry()
    direct = Histogram("h", "h", buckets=(0.5, 1, 2), registry=one)
    buckets = Buckets(Histogram("h", "h", buckets=(0.5, 1, 2), registry=many))
    for number, value in enumerate(values):
        direct.observe(value)
        buckets.observe(value)
        if number % 100 == 0:
            buckets.tell()
    buckets.tell()

    def figures(registry: CollectorRegistry) -> list[str]:
        return [line for line in generate_latest(registry).decode().splitlines() if line.startswith(("h_bucket", "h_count"))]

    assert figures(one) == figures(many)
