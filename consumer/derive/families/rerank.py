"""Rerankers: Cohere bills by the search (`search_units`), Voyage and Jina by the token."""

from consumer.derive.answer import Answer
from consumer.derive.families.openai_chat import fail
from consumer.derive.request import Prompt, Request, Turn, params
from consumer.derive.untrusted import Mapping, count, items, short
from consumer.derive.usage import Leaves, inclusive

NAME = "rerank"


def ask(body: Mapping, path: str) -> Request:
    return Request(model=short(body.get("model")), params=params(body))


def fold(answer: Answer, document: Mapping, event: str) -> None:
    if document.get("error") is not None:
        fail(answer, document["error"])
    answer.model = short(document.get("model")) or answer.model
    answer.state(document.get("usage") or document.get("meta"))
    if isinstance(document.get("results"), list) or isinstance(document.get("data"), list) or answer.stated:
        answer.understood = answer.finished = True


def leaves(stated: Mapping) -> Leaves | None:
    return inclusive(prompt=count(stated, "prompt_tokens"), completion=None, total=count(stated, "total_tokens"))


def prompt(body: Mapping) -> Prompt:
    texts = [piece for piece in [body.get("query"), *items(body.get("documents"))] if isinstance(piece, str)]
    return Prompt([Turn(texts)], uncounted=not texts, chat=False)
