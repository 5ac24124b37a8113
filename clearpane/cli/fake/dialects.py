"""The manners of the two providers: paths, keys, headers, errors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from clearpane.cli.fake import anthropic, chat, openai, responses
from clearpane.cli.fake.answer import Answer, Asked, Json, ask
from clearpane.cli.fake.refusal import Refusal

# The caller may ask for a failure; a real provider fails by itself.
FAIL_HEADER = "Fake-Status"
_MESSAGES = {
    429: "Rate limit reached for requests. Please try again in 20ms.",
    500: "The server had an error while processing your request. Sorry about that!",
    529: "Overloaded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One provider's manners: its key, its headers, its errors."""

    key_prefix: str
    request_id_header: str
    error: Callable[[Refusal, str], Json]
    headers: Callable[[str], dict[str, str]]


def _openai_headers(seed: str) -> dict[str, str]:
    return {
        "openai-organization": "fake-org",
        "openai-processing-ms": str(100 + int(seed[:2], 16)),
        "openai-version": "2020-10-01",
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-limit-tokens": "2000000",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-remaining-tokens": "1999000",
        "x-ratelimit-reset-requests": "6ms",
        "x-ratelimit-reset-tokens": "30ms",
    }


def _anthropic_headers(seed: str) -> dict[str, str]:
    return {
        "anthropic-organization-id": "00000000-0000-4000-8000-000000000000",
        "anthropic-ratelimit-requests-limit": "4000",
        "anthropic-ratelimit-requests-remaining": "3999",
        "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:00Z",
        "anthropic-ratelimit-tokens-limit": "480000",
        "anthropic-ratelimit-tokens-remaining": "479000",
        "anthropic-ratelimit-tokens-reset": "2026-01-01T00:00:00Z",
    }


OPENAI = Dialect(key_prefix="sk-", request_id_header="x-request-id", error=openai.error, headers=_openai_headers)
ANTHROPIC = Dialect(key_prefix="sk-ant-", request_id_header="request-id", error=anthropic.error, headers=_anthropic_headers)
ROUTES: dict[str, tuple[Dialect, Callable[[Asked], Answer]]] = {
    "/v1/chat/completions": (OPENAI, chat.chat),
    "/v1/completions": (OPENAI, openai.completion),
    "/v1/responses": (OPENAI, responses.response),
    "/v1/embeddings": (OPENAI, openai.embeddings),
    "/v1/messages": (ANTHROPIC, anthropic.message),
}


def of(path: str, headers: Mapping[str, str]) -> Dialect:
    """Both makers have a list of models; the version header tells Anthropic's callers."""
    known = ROUTES.get(path)
    return known[0] if known else ANTHROPIC if "anthropic-version" in headers else OPENAI


def respond(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Raises Refusal for all that is not a good call."""
    route = ROUTES.get(path)
    if route is None:
        raise Refusal(404, f"Invalid URL ({method} {path})")
    if method != "POST":
        raise Refusal(405, f"Not allowed to {method} on {path}.")
    dialect, speak = route
    admit(headers, dialect)
    try:
        return speak(ask(path, body))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # A double checks a request's shape by using it.
        raise Refusal(400, "The request has not the shape of this call.") from error


def models(dialect: Dialect, headers: Mapping[str, str], name: str | None) -> Json:
    """The list, or one by name. Raises Refusal."""
    admit(headers, dialect)
    if dialect is ANTHROPIC:
        return anthropic.models() if name is None else anthropic.model(name)
    return openai.models() if name is None else openai.model(name)


def admit(headers: Mapping[str, str], dialect: Dialect) -> None:
    """Raises Refusal: without a key, with a wrong one, or when asked to fail."""
    key = headers.get("x-api-key") or headers.get("Authorization", "").removeprefix("Bearer ")
    if not key.startswith(dialect.key_prefix):
        raise Refusal(401, "Incorrect API key provided." if key else "You didn't provide an API key.")
    wanted = headers.get(FAIL_HEADER, "")
    if wanted.isdigit() and 400 <= int(wanted) <= 599:
        raise Refusal(int(wanted), _MESSAGES.get(int(wanted), f"This failure ({wanted}) was asked for."))
