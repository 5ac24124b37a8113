"""Which family a document of an answer belongs to, by its own form: gateways answer in forms that their paths do not tell."""

from typing import Protocol

from consumer.derive.answer import Answer
from consumer.derive.families import (
    anthropic,
    cohere,
    embeddings,
    gemini,
    huggingface,
    ollama,
    openai_audio,
    openai_chat,
    openai_images,
    openai_responses,
    realtime,
    vertex_predict,
)
from consumer.derive.request import Prompt, Request
from consumer.derive.untrusted import Mapping, mapping
from consumer.derive.usage import Leaves


class Family(Protocol):
    """A module stands for it."""

    NAME: str

    def ask(self, body: Mapping, path: str) -> Request: ...
    def prompt(self, body: Mapping) -> Prompt: ...
    def fold(self, answer: Answer, document: Mapping, event: str) -> None: ...
    def leaves(self, stated: Mapping) -> Leaves | None: ...


_GEMINI = ("candidates", "usageMetadata", "promptFeedback")
_LIVE = ("serverContent", "setupComplete")


def of_answer(document: Mapping) -> Family | None:
    """None: no form that is known."""
    kind = document.get("type")
    if isinstance(document.get("choices"), list):
        return openai_chat
    if isinstance(kind, str):
        return _of_type(kind)
    form = document.get("object")
    if form in ("response", "response.compaction"):
        return openai_responses
    if form == "list" and isinstance(document.get("data"), list) and "usage" in document:
        return embeddings
    return _of_names(document)


def _of_type(kind: str) -> Family | None:
    if kind in ("message", "message_start"):
        return anthropic
    if kind.startswith("session."):
        return realtime
    if kind.startswith("response."):
        return openai_responses
    if kind in cohere.EVENTS:
        return cohere
    if kind.startswith(openai_images.EVENTS):
        return openai_images
    return openai_audio if kind.startswith(openai_audio.EVENTS) else None


def _of_names(document: Mapping) -> Family | None:
    if any(name in document for name in _LIVE):
        return realtime
    if any(name in document for name in _GEMINI):
        return gemini
    if "event_type" in document or "billed_units" in mapping(document.get("usage") or document.get("meta")):
        return cohere
    if isinstance(document.get("done"), bool) and ("message" in document or "response" in document):
        return ollama
    if "generated_text" in document:
        return huggingface
    return vertex_predict if isinstance(document.get("predictions"), list) else None
