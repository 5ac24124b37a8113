"""What counts as growth, and which processes are looked at."""

import asyncio
import os
import sys
from collections.abc import Callable

import pytest

from tests.faults import growth


@pytest.mark.parametrize(
    ("rss_kib", "descriptors", "flat"),
    [
        (lambda n: 100_000 + n % 7, lambda n: 40 + n % 5, True),
        (lambda n: 50_000 if n < 80 else 150_000, lambda n: 40, True),  # warming up
        (lambda n: 400_000 if n > 330 else 100_000, lambda n: 400 if n > 330 else 40, True),  # an outage
        (lambda n: 400_000 if 200 < n < 290 else 100_000, lambda n: 40, True),  # a long one
        (lambda n: 100_000 + 500 * n, lambda n: 40, False),
        (lambda n: 100_000, lambda n: 40 + n, False),
    ],
)
def test_growth_is_not_flat(rss_kib: Callable[[int], int], descriptors: Callable[[int], int], flat: bool) -> None:
    samples = [(rss_kib(n), descriptors(n)) for n in range(400)]
    assert growth.flatness(samples)["flat"] is flat
    assert growth.flatness(samples[:100])["flat"] is None


async def test_children_of_children_are_found_and_sampled() -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()', 'proxy.worker'])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", child, "proxy.shipper", stdin=asyncio.subprocess.PIPE)
    watched = growth.Growth(lambda: [os.getpid()])
    watching = asyncio.create_task(watched.run())
    try:
        async with asyncio.timeout(30):
            while set(watched.summary()) != {"worker", "shipper"}:
                await asyncio.sleep(0.05)
    finally:
        watching.cancel()
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
    assert watched.summary()["worker"]["lives"] == 1
    assert watched.summary()["worker"]["rss_kib_max"] > 1000
    assert growth.role_of(os.getpid()) is None
