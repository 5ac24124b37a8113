"""Embeddings in OpenAI's form, which Mistral, Voyage, Jina, Together, vLLM and others answer too."""

from consumer.derive.answer import Answer
from consumer.derive.families.openai_chat import fail
from consumer.derive.request import Prompt, Request, Turn, params, path_part
from consumer.derive.untrusted import Mapping, count, items, mapping, short
from consumer.derive.usage import Leaves, inclusive

NAME = "embeddings"


def ask(body: Mapping, path: str) -> Request:
    return Request(model=short(body.get("model")) or path_part(path, "/deployments/"), params=params(body))


def fold(answer: Answer, document: Mapping, event: str) -> None:
    if document.get("error") is not None:
        fail(answer, document["error"])
    answer.model = short(document.get("model")) or answer.model
    answer.state(document.get("usage"))
    if isinstance(document.get("data"), list) or answer.stated:  # a record may hold the counts without the vectors
        answer.understood = answer.finished = True


def leaves(stated: Mapping) -> Leaves | None:
    return inclusive(
        prompt=count(stated, "prompt_tokens"),
        completion=count(stated, "completion_tokens"),
        total=count(stated, "total_tokens"),  # Voyage states no more
        image_in=count(mapping(stated.get("prompt_tokens_details")), "image_tokens") or 0,
    )


def prompt(body: Mapping) -> Prompt:
    given = body.get("input")
    texts = [piece for piece in [given, *items(given)] if isinstance(piece, str)]
    return Prompt([Turn(texts)], uncounted=not texts, chat=False)
