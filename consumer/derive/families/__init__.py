"""Provider families: how each form of API states its answer and its usage. One module each, all with the same five functions.

    ask(body, path) -> Request              what was asked for
    prompt(body) -> Prompt                  the texts of the prompt, for an estimate
    fold(answer, document, event) -> None   one document of the answer into what is known
    leaves(stated) -> Leaves | None         the provider's counts in leaf buckets; raises Malformed
    NAME                                    the family, as the record shows it

Everything that speaks OpenAI's form (Mistral, Groq, DeepSeek, xAI, OpenRouter, Together, Fireworks, Cerebras,
vLLM, Ollama's /v1, Azure ...) is one family: their additions have names of their own and do not collide.
"""

from typing import Protocol

from consumer.derive.answer import Answer
from consumer.derive.families import anthropic, embeddings, gemini, openai_chat, openai_responses
from consumer.derive.request import Prompt, Request
from consumer.derive.untrusted import Mapping
from consumer.derive.usage import Leaves


class Family(Protocol):
    """A module stands for it."""

    NAME: str

    def ask(self, body: Mapping, path: str) -> Request: ...
    def prompt(self, body: Mapping) -> Prompt: ...
    def fold(self, answer: Answer, document: Mapping, event: str) -> None: ...
    def leaves(self, stated: Mapping) -> Leaves | None: ...


_BY_OPERATION: dict[str, Family] = {
    "chat": openai_chat,
    "completions": openai_chat,
    "responses": openai_responses,
    "embeddings": embeddings,
    "messages": anthropic,
    "generate_content": gemini,
    "embed_content": gemini,
}


def choose(operation: str | None, request: Mapping, documents: list[Mapping]) -> Family | None:
    """The answer's own form decides; then the operation; then the request's form. None: not one of ours."""
    for document in documents[:8]:
        if found := _of_answer(document):
            return found
    return _BY_OPERATION.get(operation or "") or _of_request(request)


def _of_answer(document: Mapping) -> Family | None:
    kind, form = document.get("type"), document.get("object")
    if isinstance(document.get("choices"), list):
        return openai_chat
    if form in ("response", "response.compaction") or (isinstance(kind, str) and kind.startswith("response.")):
        return openai_responses
    if kind in ("message", "message_start"):
        return anthropic
    if "candidates" in document or "usageMetadata" in document or "promptFeedback" in document:
        return gemini
    if form == "list" and isinstance(document.get("data"), list) and "usage" in document:
        return embeddings
    return None


def _of_request(request: Mapping) -> Family | None:
    if "contents" in request:
        return gemini
    if "messages" in request and "model" in request:
        return anthropic if "anthropic_version" in request else openai_chat
    return None
