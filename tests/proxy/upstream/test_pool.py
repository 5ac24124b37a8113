"""What a pool says when it has no connection to give."""

import errno
import os
import socket

import aiohappyeyeballs
import pytest

from proxy.upstream.faults import OutOfFiles
from proxy.upstream.origin import Origin
from proxy.upstream.pool import Pool, PoolBounds

BOUNDS = PoolBounds(connect_timeout_s=5, read_timeout_s=5, idle_s=5, idle_max=5)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
async def test_a_process_without_descriptors_does_not_blame_the_upstream(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object, **__: object) -> socket.socket:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", refused)
    with pytest.raises(OutOfFiles) as fault:
        await Pool(BOUNDS).connect(Origin("http", "127.0.0.1", 1))
    assert (fault.value.status, fault.value.source, fault.value.end) == (503, "proxy", "rejected")
