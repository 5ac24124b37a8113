"""The signature of a request to the intake: who may post, and that nothing was changed on the way. Pure."""

import hashlib
import hmac
from collections.abc import Mapping

CLOCK_WINDOW_S = 300
TIMESTAMP_HEADER = "clearpane-timestamp"
NONCE_HEADER = "clearpane-nonce"
SIGNATURE_HEADER = "clearpane-signature"


class Unsigned(Exception):
    """Why a request is refused; says nothing of the secret or the right signature."""


def sign(secret: str, timestamp: str, nonce: str, path: str, body: bytes) -> str:
    """Hex HMAC-SHA256 over `timestamp.nonce.path.sha256(body as sent)`."""
    text = f"{timestamp}.{nonce}.{path}.{hashlib.sha256(body).hexdigest()}"
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def check_clock(headers: Mapping[str, str], now_s: float) -> None:
    """What can be told before the body is read. Raises Unsigned."""
    stated = headers.get(TIMESTAMP_HEADER, "")
    if not stated.isascii() or not stated.isdigit() or len(stated) > 12:
        raise Unsigned(f"{TIMESTAMP_HEADER} is missing or not in Unix seconds")
    if abs(now_s - int(stated)) > CLOCK_WINDOW_S:
        raise Unsigned(f"{TIMESTAMP_HEADER} is more than {CLOCK_WINDOW_S} s away: check the clocks of both machines")


def check(secret: str, headers: Mapping[str, str], path: str, body: bytes) -> None:
    """Raises Unsigned. A replay inside the window is harmless: a record is stored once."""
    expected = sign(secret, headers.get(TIMESTAMP_HEADER, ""), headers.get(NONCE_HEADER, ""), path, body)
    if not hmac.compare_digest(expected.encode(), headers.get(SIGNATURE_HEADER, "").encode()):
        raise Unsigned("the signature does not match: is intake_secret the same on both sides?")
