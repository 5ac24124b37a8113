"""AWS signature version 4, made anew for a request that was changed on its way."""

import hashlib
import hmac
import re
from collections.abc import Mapping

_AUTHORIZATION = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/([^,]+), ?SignedHeaders=([^,]+), ?Signature=\w+")


def signed_again(method: str, target: str, headers: Mapping[str, str], secret: str) -> str:
    """The `authorization` of these headers, by the key and for the headers that the old one names and that are still there."""
    found = _AUTHORIZATION.fullmatch(headers["authorization"])
    assert found, headers["authorization"]
    access, scope = found[1], found[2]
    names = [name for name in found[3].split(";") if name in headers]
    path, _, query = target.partition("?")
    lines = [f"{name}:{' '.join(headers[name].split())}" for name in names]
    canonical = "\n".join([method, path, query, *lines, "", ";".join(names), headers["x-amz-content-sha256"]])
    text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + secret.encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    return f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={';'.join(names)}, Signature={key.hex()}"
