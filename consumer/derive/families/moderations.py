"""Moderations in OpenAI's form. OpenAI meters none; where a provider states tokens (Mistral), they are taken."""

from consumer.derive.answer import Answer
from consumer.derive.families.embeddings import ask, leaves, prompt
from consumer.derive.families.openai_chat import fail
from consumer.derive.untrusted import Mapping, short

__all__ = ["NAME", "ask", "fold", "leaves", "prompt"]

NAME = "moderations"


def fold(answer: Answer, document: Mapping, event: str) -> None:
    if document.get("error") is not None:
        fail(answer, document["error"])
    answer.model = short(document.get("model")) or answer.model
    answer.state(document.get("usage"))
    if isinstance(document.get("results"), list):
        answer.understood = answer.finished = True
