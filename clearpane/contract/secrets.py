"""Secrets: which headers may be recorded, what a caller's key is, and how it is kept out of all we write.

Pure. `scrub` runs for every call, so it first looks for unbroken runs of 20 key characters, which one
translation and a search with long jumps find, and reads only those. Its time is linear in the data.
"""

import hmac
import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from urllib.parse import unquote_to_bytes

REDACTED = "[redacted]"
_REDACTED = REDACTED.encode()

# A name that ends in `*` allows every name that begins so.
ALLOWED_REQUEST_HEADERS = frozenset(
    {
        b"accept",
        b"anthropic-beta",
        b"anthropic-version",
        b"content-encoding",
        b"content-type",
        b"idempotency-key",  # names a call, opens nothing
        b"openai-beta",
        b"openai-organization",
        b"openai-project",
        b"x-stainless-*",  # what the official SDKs say of themselves, the retry count among it
    }
)
ALLOWED_RESPONSE_HEADERS = frozenset(
    {
        b"anthropic-organization-id",
        b"anthropic-ratelimit-*",
        b"apim-request-id",
        b"cf-ray",
        b"content-encoding",
        b"content-type",
        b"date",
        b"openai-model",
        b"openai-organization",
        b"openai-processing-ms",
        b"openai-version",
        b"request-id",
        b"retry-after",
        b"retry-after-ms",
        b"server",
        b"x-amzn-bedrock-*",
        b"x-amzn-errortype",
        b"x-amzn-requestid",
        b"x-envoy-upstream-service-time",
        b"x-generation-id",
        b"x-goog-request-id",
        b"x-groq-region",
        b"x-ms-region",
        b"x-ratelimit-*",
        b"x-request-id",
        b"x-should-retry",
    }
)

# A shorter "key" would also be a word of the prompt.
_CREDENTIAL_BYTES_MIN = 8
_COOKIE_BYTES_MIN = 16
# Of a key that the end of a capture cuts, so much is compared.
_CUT_BYTES_MAX = 4096

_KEY_HEADERS = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
_SECRET_HEADER = re.compile(rb"(?:proxy-|helicone-|clearpane-)?(?:authorization|auth)|(?:.*-)?(?:key|token|secret)")
_HARMLESS_HEADERS = frozenset({b"idempotency-key", b"sec-websocket-key"})  # the latter is drawn anew for each connection
# Browsers cannot set headers on a WebSocket: they name `openai-insecure-api-key.<key>` as a protocol they would speak.
_PROTOCOLS_HEADER = b"sec-websocket-protocol"
_SECRET_PARAMETER = re.compile(
    rb"(?:.*[-_.])?(?:key|apikey|token|secret|password|passwd|sig|signature|credential|credentials|auth|authorization)", re.IGNORECASE
)
_PARAMETER = re.compile(rb"([?&;#][^=&;#?]*=)([^&;#]*)")
_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)?//([^/?#]*)@")


def safe_headers(raw: Iterable[tuple[bytes, bytes]], allowed: frozenset[bytes]) -> dict[str, str]:
    """The allowed headers: names in small letters, duplicates joined by ', '."""
    safe: dict[str, str] = {}
    for raw_name, raw_value in raw:
        key = _shown(raw_name, allowed)
        if key is not None:
            value = raw_value.decode("utf-8", "replace")
            safe[key] = f"{safe[key]}, {value}" if key in safe else value
    return safe


# Clients and providers use the same few dozen names all day: what a name means is decided once.
_NAMES_KEPT = 4096
# A caller shows the same keys with every call.
_CALLERS_KEPT = 512


@lru_cache(maxsize=_NAMES_KEPT)
def _shown(raw_name: bytes, allowed: frozenset[bytes]) -> str | None:
    """The name under which an allowed header stands on the record."""
    name = raw_name.lower()
    exact, prefixes = _names(allowed)
    return name.decode("latin-1") if name in exact or name.startswith(prefixes) else None


@lru_cache(maxsize=8)
def _names(allowed: frozenset[bytes]) -> tuple[frozenset[bytes], tuple[bytes, ...]]:
    return frozenset(n for n in allowed if not n.endswith(b"*")), tuple(n[:-1] for n in allowed if n.endswith(b"*"))


@lru_cache(maxsize=_NAMES_KEPT)
def _holds(raw_name: bytes) -> bytes | None:
    """The small-letter name of a header that holds secrets, else None."""
    name = raw_name.lower()
    secret = name in {b"cookie", _PROTOCOLS_HEADER} or (name not in _HARMLESS_HEADERS and _SECRET_HEADER.fullmatch(name))
    return name if secret else None


def credential_of(raw_headers: Iterable[tuple[bytes, bytes]], raw_query: bytes) -> bytes | None:
    """The key a caller shows, for its fingerprint; the first of header and query that has one."""
    shown: dict[bytes, bytes] = {}
    for raw_name, value in raw_headers:
        if (name := _holds(raw_name)) is not None:
            shown.setdefault(name, value)
    for name in _KEY_HEADERS:
        if key := _bare(shown.get(name, b"")):
            return key
    others = chain(_protocol_secrets(shown.get(_PROTOCOLS_HEADER, b"")), _query_secrets(raw_query))
    return next((value for value in others if value), None)


def credentials_of(raw_headers: Iterable[tuple[bytes, bytes]], raw_query: bytes) -> tuple[bytes, ...]:
    """Every secret a request shows, longest first: what must stand in no record of it."""
    return _secrets_in(tuple((name, value) for raw_name, value in raw_headers if (name := _holds(raw_name)) is not None), raw_query)


@lru_cache(maxsize=_CALLERS_KEPT)
def _secrets_in(headers: tuple[tuple[bytes, bytes], ...], raw_query: bytes) -> tuple[bytes, ...]:
    found: set[bytes] = set()
    for name, value in headers:
        if name == b"cookie":
            found.update(v for v in _cookie_values(value) if len(v) >= _COOKIE_BYTES_MIN)
        elif name == _PROTOCOLS_HEADER:
            found.update(_protocol_secrets(value))
        else:
            found.update(_spellings(_bare(value)))
    for value in _query_secrets(raw_query):
        found.update((value, unquote_to_bytes(value)))
    return tuple(sorted((v for v in found if len(v) >= _CREDENTIAL_BYTES_MIN), key=lambda v: (-len(v), v)))


def fingerprint(key: bytes, pepper: bytes) -> str:
    """12 hexadecimal digits that stand for a key and cannot be turned back without the pepper."""
    return hmac.new(pepper, key, "sha256").hexdigest()[:12]


def _bare(value: bytes) -> bytes:
    """`Bearer k` -> k; of a signature (AWS4-HMAC-SHA256 Credential=ID/...) the ID, as the rest changes each time."""
    scheme, _, rest = value.strip().partition(b" ")
    bare = rest.strip() or scheme
    if scheme.upper().startswith(b"AWS4-"):
        _, _, bare = bare.partition(b"Credential=")
        bare = bare.partition(b"/")[0]
    return b"" if bare.lower() in {b"bearer", b"basic"} else bare


def _spellings(key: bytes) -> Iterator[bytes]:
    yield key
    try:  # Basic: the password also stands alone
        yield b64decode(key, validate=True).partition(b":")[2]
    except NotBase64:
        return


def _cookie_values(value: bytes) -> Iterator[bytes]:
    for pair in value.split(b";"):
        yield pair.partition(b"=")[2].strip()


def _protocol_secrets(value: bytes) -> Iterator[bytes]:
    for protocol in value.split(b","):
        name, _, secret = protocol.strip().partition(b".")
        if _SECRET_PARAMETER.fullmatch(name):
            yield secret


def _query_secrets(raw_query: bytes) -> Iterator[bytes]:
    for match in _PARAMETER.finditer(b"?" + raw_query):
        if _names_a_secret(match[1]):
            yield match[2]


def _names_a_secret(parameter: bytes) -> bool:
    return _SECRET_PARAMETER.fullmatch(unquote_to_bytes(parameter[1:-1])) is not None


def safe_target(path_and_query: str) -> str:
    """The values of secret query parameters replaced, all else as it was."""
    path, mark, query = path_and_query.partition("?")
    if not mark:
        return path_and_query
    raw = (mark + query).encode("utf-8", "surrogateescape")
    safe = _PARAMETER.sub(lambda m: m[1] + _REDACTED if _names_a_secret(m[1]) and m[2] else m[0], raw)
    return path + safe.decode("utf-8", "surrogateescape")


def safe_url(url: str) -> str:
    """As `safe_target`, the user and password before the host replaced too."""
    found = _USERINFO.match(url)
    return safe_target(f"{found[1] or ''}//{REDACTED}@{url[found.end() :]}" if found else url)


# The shortest run that can hold a key, and how far into a longer run (base64, say) is looked from both ends.
_RUN = 20
_RUN_BYTES_MAX = 4096
_KEY_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+/"
_IS_KEY_BYTE = bytes(97 if byte in _KEY_BYTES else 32 for byte in range(256))

_BASE62, _BASE64URL, _BASE64 = rb"[A-Za-z0-9]*+", rb"[A-Za-z0-9_-]*+", rb"[A-Za-z0-9+/]*+"
# What a provider's key begins with: the characters that follow, and how many at least.
_FORMS: dict[bytes, tuple[re.Pattern[bytes], int]] = {
    prefix: (re.compile(rest), least)
    for prefix, rest, least in (
        *((b"sk-" + name, _BASE64URL, 16) for name in (b"ant-", b"proj-", b"or-", b"svcacct-", b"admin-", b"lf-", b"helicone-")),
        (b"sk-", _BASE64URL, 17),  # judged further: `sk-learn-compatible-estimators` is none
        (b"csk-", _BASE62, 24),
        (b"ek_", _BASE62, 24),  # OpenAI's ephemeral keys, which clients are handed for a realtime session
        (b"pk-helicone-", _BASE64URL, 16),
        (b"AIza", _BASE64URL, 30),
        (b"gsk_", _BASE62, 20),
        (b"xai-", _BASE62, 20),
        (b"hf_", _BASE62, 30),
        (b"r8_", _BASE62, 30),
        (b"pplx-", _BASE62, 32),
        (b"nvapi-", _BASE64URL, 32),
        (b"tgp_v1_", _BASE64URL, 24),
        (b"AKIA", rb"[A-Z0-9]*+", 16),
        (b"ASIA", rb"[A-Z0-9]*+", 16),
        (b"IQoJb3JpZ2lu", _BASE64, 80),  # AWS session token
        (b"ABSK", _BASE64, 80),  # Bedrock API key
        *((b"gh" + kind + b"_", _BASE62, 36) for kind in (b"p", b"o", b"u", b"s", b"r")),
        (b"github_pat_", rb"[A-Za-z0-9_]*+", 40),
        (b"eyJ", _BASE64URL, 8),  # judged further: a JWT has two dots
    )
}
_PREFIX = re.compile(b"|".join(re.escape(prefix) for prefix in sorted(_FORMS, key=len, reverse=True)))
_JWT_REST = re.compile(rb"\.eyJ[A-Za-z0-9_-]++\.[A-Za-z0-9_-]*+")
# What of itself has no form is a key only behind its label: by length, the label before and the characters.
_API_KEY = rb"""(?i:api[-_ ]?key|subscription-key)[\\"']{0,4}\s{0,4}[:=]\s{0,4}[\\"']{0,4}\Z"""
_AWS_SECRET = rb"""(?i:secret_?access_?key)[\\"']{0,4}\s{0,4}[:=]\s{0,4}[\\"']{0,4}\Z"""
_LABELLED = {
    length: (re.compile(label), re.compile(characters))
    for length, label, characters in (
        (32, _API_KEY, rb"[0-9a-fA-F]*+"),  # Azure
        (84, _API_KEY, rb"[A-Za-z0-9]*+"),  # Azure, since 2024
        (40, _AWS_SECRET, rb"[A-Za-z0-9/+]*+"),
    )
}
_GOOGLE_TOKEN = b"ya29."  # the dot ends a run
_LABEL_BYTES_MAX = 40
_BEFORE_A_KEY = re.compile(rb"(?:\A|[^A-Za-z0-9]|\\[nrtbf]|%[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4})\Z")
_DASHED_PART = re.compile(rb"[A-Za-z0-9_]{10,}+")
_PRIVATE_KEY_BYTES_MIN = 16
_PRIVATE_KEY_MARK = b"PRIVATE KEY-----"
_PRIVATE_KEY = re.compile(
    rb"PRIVATE KEY-----(?:(?:\s|\\[nr])*+(?:Proc-Type|DEK-Info): ?[A-Za-z0-9,-]{1,80}+)*+"
    rb"((?:[A-Za-z0-9+/=\r\n]|\\[nr])*+)(?:-----END [A-Z ]{0,24}PRIVATE KEY-----)?"
)


def scrub(data: bytes, known: Sequence[bytes] = ()) -> tuple[bytes, int]:
    """(data without secrets, how many were replaced): the known ones, and what has the form of a provider's key.

    A key that the end of the data cuts off is replaced too if it is known. Not found: a key that is split over
    several pieces of a stream, is compressed, or stands deep inside an unbroken run longer than 8 KiB.
    """
    count = 0
    for key in known:
        if len(key) >= _CREDENTIAL_BYTES_MIN:
            if found := data.count(key):
                data, count = data.replace(key, _REDACTED), count + found
            if (cut := _cut(data, key)) is not None:
                data, count = data[:cut] + _REDACTED, count + 1
    spans = sorted([*_private_keys(data), *_keys(data)])
    return (_without(data, spans), count + len(spans)) if spans else (data, count)


def _cut(data: bytes, key: bytes) -> int | None:
    """Where the data ends in the beginning of a key."""
    at = len(data) - min(len(key) - 1, _CUT_BYTES_MAX)
    start = key[:_CREDENTIAL_BYTES_MIN]
    while (at := data.find(start, max(at, 0))) >= 0:
        if key.startswith(data[at:]):
            return at
        at += 1
    return None


def _without(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    pieces, done = [], 0
    for start, end in spans:
        if end > done:
            pieces += [data[done : max(start, done)], _REDACTED]
            done = end
    return b"".join([*pieces, data[done:]])


def _private_keys(data: bytes) -> Iterator[tuple[int, int]]:
    at = 0
    while (at := data.find(_PRIVATE_KEY_MARK, at)) >= 0:
        match = _PRIVATE_KEY.match(data, at)
        assert match is not None  # it begins with what was found
        begin = data.rfind(b"-----BEGIN ", max(0, at - 24), at)
        if begin >= 0 and len(match[1]) >= _PRIVATE_KEY_BYTES_MIN:
            yield begin, match.end()
        at = match.end()


def _keys(data: bytes) -> Iterator[tuple[int, int]]:
    for start, end in _runs(data):
        if _is_labelled(data, start, end) or data[max(0, start - len(_GOOGLE_TOKEN)) : start] == _GOOGLE_TOKEN:
            yield start, end
        elif end - start <= 2 * _RUN_BYTES_MAX:
            yield from _keys_of_run(data, start, end)
        else:
            yield from _keys_of_run(data, start, start + _RUN_BYTES_MAX)
            yield from _keys_of_run(data, end - _RUN_BYTES_MAX, end)


def _is_labelled(data: bytes, start: int, end: int) -> bool:
    if (form := _LABELLED.get(end - start)) is None:
        return False
    label, characters = form
    return bool(characters.fullmatch(data, start, end) and label.search(data[max(0, start - _LABEL_BYTES_MAX) : start]))


def _runs(data: bytes) -> Iterator[tuple[int, int]]:
    shape, end = data.translate(_IS_KEY_BYTE), 0
    while (start := shape.find(b"a" * _RUN, end)) >= 0:
        end = shape.find(b" ", start + _RUN)
        end = len(data) if end < 0 else end
        yield start, end


def _keys_of_run(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    while match := _PREFIX.search(data, start, end):
        start = match.start() + 1
        if _BEFORE_A_KEY.search(data[max(0, match.start() - 6) : match.start()]) is None:
            continue
        rest, least = _FORMS[match[0]]
        body = rest.match(data, match.end(), end)
        start = body.end() if body else match.end()  # a key that is none holds no other: no byte is read twice
        if (found := _end_of_key(data, match[0], match.end(), start, least)) is not None:
            yield match.start(), found
            start = max(start, found)


def _end_of_key(data: bytes, prefix: bytes, start: int, end: int, least: int) -> int | None:
    if end - start < least:
        return None
    if prefix == b"eyJ":
        rest = _JWT_REST.match(data, end)
        return rest.end() if rest else None
    if prefix == b"sk-" and not any(map(_looks_random, _DASHED_PART.findall(data, start, end))):
        return None
    return end


def _looks_random(part: bytes) -> bool:
    digits = any(byte in b"0123456789" for byte in part)
    return digits and (len(part) >= 20 or (part != part.lower() and part != part.upper()))
