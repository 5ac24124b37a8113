"""Where a call goes: path prefix -> named upstream; and what kind of call it is. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from proxy.upstream.origin import Origin

# The built-in names. Configuration overrides a name or adds others; None needs a URL of your own.
BUILT_IN: dict[str, str | None] = {
    "openai": "https://api.openai.com",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
    "azure": None,
    "bedrock": "https://bedrock-runtime.us-east-1.amazonaws.com",
    "mistral": "https://api.mistral.ai",
    "groq": "https://api.groq.com",
    "deepseek": "https://api.deepseek.com",
    "openrouter": "https://openrouter.ai",
    "together": "https://api.together.xyz",
    "fireworks": "https://api.fireworks.ai",
    "xai": "https://api.x.ai",
    "cohere": "https://api.cohere.com",
    "ollama": "http://127.0.0.1:11434",
    "vllm": "http://127.0.0.1:8000",
}
DEFAULT = "default"
_TARGETS_KEPT = 1024

# Hosts that say which provider stands behind a URL of the user's own.
_PROVIDER_HOSTS = (
    ("openai.azure.com", "azure"),
    ("cognitiveservices.azure.com", "azure"),
    ("services.ai.azure.com", "azure"),
    ("api.openai.com", "openai"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gemini"),
    ("aiplatform.googleapis.com", "gemini"),
    ("api.mistral.ai", "mistral"),
    ("api.groq.com", "groq"),
    ("api.deepseek.com", "deepseek"),
    ("openrouter.ai", "openrouter"),
    ("api.together.xyz", "together"),
    ("api.fireworks.ai", "fireworks"),
    ("api.x.ai", "xai"),
    ("api.cohere.com", "cohere"),
)

# Tried in order on the path behind the upstream's prefix.
_OPERATIONS = tuple(
    (re.compile(pattern), operation)
    for pattern, operation in (
        (r"/chat/completions$", "chat"),
        (r"/responses(/[^/]+)?(/(cancel|input_items|compact))?$", "responses"),
        (r"(?<!/api)/embeddings$", "embeddings"),
        (r"/messages$", "messages"),
        (r"/messages/count_tokens$", "count_tokens"),
        (r"/messages/batches(/.*)?$", "batches"),
        (r":(stream)?[gG]enerateContent$", "generate_content"),
        (r":(batchE|e)mbedContents?$", "embed_content"),
        (r":countTokens$", "count_tokens"),
        (r"/completions$", "completions"),
        (r"/model/[^/]+/(converse|converse-stream)$", "converse"),
        (r"/model/[^/]+/(invoke|invoke-with-response-stream)$", "invoke"),
        (r"/images/(generations|edits|variations)$", "images"),
        (r"/audio/(transcriptions|translations)$", "transcription"),
        (r"/audio/speech$", "speech"),
        (r"/moderations$", "moderations"),
        (r"/rerank$", "rerank"),
        (r"/api/(chat|generate|embed|embeddings)$", "ollama"),
        (r"/v[12]/chat$", "cohere_chat"),
        (r"/v[12]/embed$", "embed"),
        (r"/publishers/anthropic/models/[^/]+:(r|streamR)awPredict$", "messages"),
        (r":predict$", "predict"),
        (r"/generate(_stream)?$", "generate"),
        (r"/batches(/.*)?$", "batches"),
        (r"/files(/.*)?$", "files"),
        (r"/models(/.*)?$", "models"),
        (r"/realtime(/.*)?$", "realtime"),
        (r"[./]BidiGenerateContent(Constrained)?$", "realtime"),
    )
)


class NoRoute(Exception):
    """No upstream for this path; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """`base_path` stands before the caller's path; `host` is the Host header."""

    name: str
    provider: str | None
    origin: Origin
    host: bytes
    base_path: str
    url: str


@dataclass(frozen=True, slots=True)
class Route:
    upstream: Upstream
    target: str  # path and query for the upstream, as the caller spelt them
    operation: str


class Routes:
    """All upstreams of a configuration."""

    def __init__(self, default_upstream: str, configured: Mapping[str, str]) -> None:
        urls = {**BUILT_IN, **configured}
        self._default = _upstream(DEFAULT, default_upstream)
        self._named = {name: _upstream(name, url) if url else None for name, url in urls.items()}
        self.find = lru_cache(maxsize=_TARGETS_KEPT)(self._find)  # callers use a handful of targets all day

    @property
    def names(self) -> list[str]:
        """Every upstream that calls can go to: a closed set, fit for metric labels."""
        return [DEFAULT, *sorted(name for name, upstream in self._named.items() if upstream)]

    def _find(self, target: str) -> Route:
        """`target`: the request target as it came, checked to begin with exactly one `/`. Raises NoRoute."""
        if not target.startswith("/") or target.startswith("//") or "#" in target:
            raise NoRoute("the request target must be a path that begins with one slash")
        prefix, rest = _first_segment(target)
        if prefix == "v1":
            return _route(self._default, target)
        if prefix not in self._named:
            raise NoRoute(
                f"no upstream is called {prefix[:64]!r}: call /v1/..., /openai/v1/..., /anthropic/v1/..., or configure one with --upstream"
            )
        upstream = self._named[prefix]
        if upstream is None:
            raise NoRoute(f"upstream {prefix!r} has no URL yet: give yours with --upstream {prefix}=https://...")
        return _route(upstream, rest or "/")


def _first_segment(target: str) -> tuple[str, str]:
    """('openai', '/v1/models?x') of '/openai/v1/models?x'."""
    path, question, query = target.partition("?")
    prefix, slash, rest = path[1:].partition("/")
    return prefix, f"{slash}{rest}{question}{query}"


def _route(upstream: Upstream, target: str) -> Route:
    if target.startswith("?"):
        target = "/" + target
    return Route(upstream, upstream.base_path + target, operation_of(target))


def operation_of(target: str) -> str:
    path = target.partition("?")[0].rstrip("/")
    return next((operation for pattern, operation in _OPERATIONS if pattern.search(path)), "other")


def _upstream(name: str, url: str) -> Upstream:
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    provider = _provider_of_host(host) or (name if name in BUILT_IN else None)
    return Upstream(name, provider, Origin(parts.scheme, host, port), parts.netloc.encode("ascii"), parts.path.rstrip("/"), url)


def _provider_of_host(host: str) -> str | None:
    if host.startswith("bedrock") and host.endswith(".amazonaws.com"):
        return "bedrock"
    return next((provider for end, provider in _PROVIDER_HOSTS if host == end or host.endswith((f".{end}", f"-{end}"))), None)
