"""Which header lines pass, each way. Pure: bytes in, bytes out, order, spelling and duplicates kept.

What is taken out of a request: hop-by-hop lines (RFC 9110 section 7.6.1 and whatever `Connection` names),
`Expect: 100-continue` (it is answered by us), `Host`, `Content-Length` and `Transfer-Encoding` (the hop to the upstream has
its own), and control headers. Out of an answer: hop-by-hop lines only; its framing is relayed as it is.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

Headers = Sequence[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"upgrade"}
)
_OURS_UPSTREAM = frozenset({b"host", b"content-length", b"transfer-encoding"}) | HOP_BY_HOP
# `Connection` may not be used to make us drop what frames the message or says who calls.
_NEVER_NAMED = frozenset({b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"content-type", b"content-encoding"})
_CONTROL_PREFIXES = (b"clearpane-", b"helicone-")


class Refused(Exception):
    """A header that cannot be forwarded as it is; says which, never its value."""


def is_control(name: bytes) -> bool:
    return name.lower().startswith(_CONTROL_PREFIXES)


def request_head(method: str, target: bytes, host: bytes, headers: Headers, framing: bytes, added: Headers = ()) -> bytes:
    """The head for the upstream, its empty line included. `framing` is a complete header line, or empty. Raises Refused."""
    named = _named_by_connection(headers)
    parts = [method.encode("ascii"), b" ", target, b" HTTP/1.1\r\nHost: ", host, b"\r\n"]
    for name, value in headers:
        if _stays_behind(name) or (named and name.lower() in named) or (lower(name) == b"expect" and _is_continue(value)):
            continue
        if b"\r" in value or b"\n" in value or b"\0" in value:  # the server's parser lets none through: a second lock on the door
            raise Refused(f"header {name.decode('latin-1')} has a control byte in its value")
        parts += (name, b": ", value, b"\r\n")
    for name, value in added:
        parts += (name, b": ", value, b"\r\n")
    parts += (framing, b"\r\n")
    return b"".join(parts)


def response_fields(fields: bytes, *, unframed: bool = False) -> bytes:
    """The header lines of an answer that go on to the client; lines begin and end with CRLF, here and there.

    `unframed`: for an HTTP/1.0 client the chunked framing is taken off.
    """
    lines = fields[2:-2].split(b"\r\n") if len(fields) > 2 else []
    pairs = [(line.partition(b":")[0], line) for line in lines]
    named = _named_by_connection([(name, line[len(name) + 1 :]) for name, line in pairs])
    passing = [
        line
        for name, line in pairs
        if not ((lowered := lower(name)) in HOP_BY_HOP or lowered in named or (unframed and lowered == b"transfer-encoding"))
    ]
    return b"\r\n".join([b"", *passing, b""]) if passing else b"\r\n"


def first(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first value of `name` (small letters)."""
    for found, value in headers:
        if len(found) == len(name) and found.lower() == name:
            return value
    return None


def expects_continue(headers: Headers) -> bool:
    """Whether `100-continue` is among what the lines of `Expect` list, other expectations beside it or not."""
    return any(_is_continue(member) for name, value in headers if lower(name) == b"expect" for member in value.split(b","))


def _is_continue(value: bytes) -> bool:
    return value.strip(b" \t").lower() == b"100-continue"


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    named = [
        token.strip(b" \t").lower()
        for name, value in headers
        if len(name) == 10 and name.lower() == b"connection"
        for token in value.split(b",")
    ]
    return frozenset(named) - _NEVER_NAMED - {b"close", b"", b"content-length", b"transfer-encoding"}


# The same few dozen names come all day: what a name means is decided once.
_NAMES_KEPT = 4096


@lru_cache(maxsize=_NAMES_KEPT)
def lower(name: bytes) -> bytes:
    return name.lower()


@lru_cache(maxsize=_NAMES_KEPT)
def _stays_behind(name: bytes) -> bool:
    return name.lower() in _OURS_UPSTREAM or is_control(name)
