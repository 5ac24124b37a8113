"""Post: batches of envelopes to the consumer's intake, signed. The shipper's only importer of aiohttp."""

import asyncio
import hashlib
import hmac
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from clearpane.contract import bodies
from clearpane.contract.envelope import SCHEMA, SCHEMA_HEADER

_CONNECT_TIMEOUT_S = 5.0
_ANSWER_BYTES_MAX = 64 << 10
# The batch itself is wrong; half of it may pass.
_REFUSED = frozenset({400, 413, 422})


@dataclass(frozen=True, slots=True)
class Stored:
    """Every record of the spool's HTTP sequence below `end` is in the lake."""

    end: int


@dataclass(frozen=True, slots=True)
class Behind:
    """The intake's sequence ends before the batch begins: it must begin at `end`."""

    end: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The intake takes this batch in no case."""

    status: int


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Not now. `reason` is from a closed set: unreachable, timeout, unauthorized, status, answer."""

    reason: str
    retry_after_s: float = 0.0
    status: int = 0


Answer = Stored | Behind | Refused | Unavailable


def signature(secret: bytes, timestamp: str, nonce: str, path: str, body: bytes) -> str:
    digest = hashlib.sha256(body).hexdigest()
    return hmac.new(secret, f"{timestamp}.{nonce}.{path}.{digest}".encode(), "sha256").hexdigest()


class Intake:
    """`url` without a path. Keeps no cookies, follows no redirects, reads no proxy settings, tries nothing twice."""

    def __init__(self, url: str, secret: str | None, timeout_s: float) -> None:
        self._url = url
        self._secret = secret.encode() if secret else None
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_TIMEOUT_S)
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=10, ttl_dns_cache=30),
            timeout=timeout,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    async def post(self, spool_id: str, first: int, envelopes: Sequence[bytes]) -> Answer:
        """`envelopes` have the HTTP sequence numbers from `first` on."""
        path = f"/v1/records/{spool_id}/{first}"
        body = await asyncio.to_thread(lambda: bodies.compress(b"".join(line + b"\n" for line in envelopes)))
        try:
            async with self._session.post(
                self._url + path, data=body, headers=self._headers(path, body), allow_redirects=False, skip_auto_headers=("User-Agent",)
            ) as response:
                return _answer(response.status, response.headers.get("Retry-After"), await _read(response))
        except TimeoutError:
            return Unavailable("timeout")
        except (aiohttp.ClientError, OSError):
            return Unavailable("unreachable")

    async def end(self, spool_id: str) -> Answer:
        """Where the intake has this spool's HTTP sequence end, once no write of it is in doubt there."""
        path = f"/v1/records/{spool_id}"
        try:
            async with self._session.get(self._url + path, headers=self._signed(path, b""), allow_redirects=False) as response:
                return _answer(response.status, response.headers.get("Retry-After"), await _read(response))
        except TimeoutError:
            return Unavailable("timeout")
        except (aiohttp.ClientError, OSError):
            return Unavailable("unreachable")

    def _headers(self, path: str, body: bytes) -> dict[str, str]:
        stated = {"Content-Type": "application/x-ndjson", "Content-Encoding": "zstd", SCHEMA_HEADER: SCHEMA}
        return stated | self._signed(path, body)

    def _signed(self, path: str, body: bytes) -> dict[str, str]:
        if self._secret is None:
            return {}
        timestamp, nonce = str(int(time.time())), os.urandom(16).hex()
        stated = signature(self._secret, timestamp, nonce, path, body)
        return {"clearpane-timestamp": timestamp, "clearpane-nonce": nonce, "clearpane-signature": stated}


async def _read(response: aiohttp.ClientResponse) -> Any:
    """The answer's JSON; None for anything else."""
    data = await response.content.read(_ANSWER_BYTES_MAX)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _answer(status: int, retry_after: str | None, body: Any) -> Answer:
    end = body.get("end") if isinstance(body, dict) else None
    stated = end if isinstance(end, int) and end >= 0 else None
    if status in {200, 409}:
        if stated is None:
            return Unavailable("answer", status=status)
        return Stored(stated) if status == 200 else Behind(stated)
    if status in _REFUSED:
        return Refused(status)
    reason = "unauthorized" if status in {401, 403} else "status"
    wait_s = float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 6 else 0.0
    return Unavailable(reason, wait_s, status)
