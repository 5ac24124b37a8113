import asyncio

import pytest

from proxy.upstream.faults import ConnectFailed
from proxy.upstream.guard import is_forbidden
from proxy.upstream.origin import Origin
from proxy.upstream.pool import Pool, PoolBounds


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1%eth0", "0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "fd00:ec2::254"],
)
def test_no_upstream_is_there(address: str) -> None:
    assert is_forbidden(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.8", "192.168.1.4", "fd12::8", "104.18.6.192", "2606:4700::6812:6c0"])
def test_upstreams_of_the_world_and_of_ones_own_network_are_fine(address: str) -> None:
    assert not is_forbidden(address)


@pytest.mark.parametrize("host", ["169.254.169.254", "0xA9FEA9FE", "2852039166"])
async def test_every_spelling_of_a_forbidden_address_is_refused_before_a_connect(host: str) -> None:
    pool = Pool(PoolBounds(connect_timeout_s=5, read_timeout_s=5, idle_s=5, idle_max=5))
    async with asyncio.timeout(10):
        with pytest.raises(ConnectFailed, match="no upstream may be there"):
            await pool.connect(Origin("http", host, 80))
    await pool.stop()
