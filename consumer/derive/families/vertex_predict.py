"""Vertex AI's `:predict`: text embeddings state their tokens; images and other models state none.

https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api
"""

from consumer.derive.answer import Answer
from consumer.derive.families.openai_chat import fail
from consumer.derive.request import Prompt, Request, Turn, params, path_part
from consumer.derive.untrusted import Mapping, count, mapping, mappings
from consumer.derive.usage import Leaves

NAME = "vertex_predict"


def ask(body: Mapping, path: str) -> Request:
    return Request(model=path_part(path, "/models/"), params=params(mapping(body.get("parameters"))))


def fold(answer: Answer, document: Mapping, event: str) -> None:
    if document.get("error") is not None:
        fail(answer, document["error"])
    if isinstance(document.get("predictions"), list):
        answer.understood = answer.finished = True
        embeddings = (mapping(each.get("embeddings")) for each in mappings(document["predictions"]))
        counts = [mapping(each.get("statistics")).get("token_count") for each in embeddings]
        answer.state({"token_counts": counts} if counts and None not in counts else None)


def leaves(stated: Mapping) -> Leaves | None:
    counts = stated.get("token_counts")
    if not isinstance(counts, list):
        return None
    return Leaves(input_tokens=sum(count({"token_count": each}, "token_count") or 0 for each in counts))


def prompt(body: Mapping) -> Prompt:
    texts = [each["content"] for each in mappings(body.get("instances")) if isinstance(each.get("content"), str)]
    return Prompt([Turn(texts)], uncounted=not texts, chat=False)
