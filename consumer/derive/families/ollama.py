"""Ollama's own API, streamed as JSON lines: https://github.com/ollama/ollama/blob/main/docs/api.md

The last line counts; a prompt that the cache held whole is not counted, and then the call is estimated.
"""

from consumer.derive.answer import Answer, Choice
from consumer.derive.families import openai_chat
from consumer.derive.request import Prompt, Request, Turn, kind, params
from consumer.derive.untrusted import Mapping, count, dumps, items, mapping, mappings, short
from consumer.derive.usage import Leaves

NAME = "ollama"

_COUNTS = ("prompt_eval_count", "eval_count")


def ask(body: Mapping, path: str) -> Request:
    options = mapping(body.get("options"))
    return Request(
        model=short(body.get("model")),
        params=params(options, max_tokens=options.get("num_predict"), response_format=kind(body.get("format")), thinking=body.get("think")),
        stream=body.get("stream") is not False,
    )


def fold(answer: Answer, document: Mapping, event: str) -> None:
    if document.get("error") is not None:
        answer.fail(None)  # `{"error": text}`, no code
        return
    choice = answer.choice(0)
    answer.model = short(document.get("model")) or answer.model
    answer.understood = True
    answer.add(choice.text, document.get("response"))
    answer.add(choice.reasoning, document.get("thinking"))
    _fold_message(answer, choice, mapping(document.get("message")))
    answer.state({name: document[name] for name in _COUNTS if name in document})
    if "embeddings" in document or "embedding" in document:
        answer.finished = True
    elif document.get("done") is True:
        answer.finish(choice, document.get("done_reason") or "stop")


def _fold_message(answer: Answer, choice: Choice, message: Mapping) -> None:
    answer.add(choice.text, message.get("content"))
    answer.add(choice.reasoning, message.get("thinking"))
    for call in mappings(message.get("tool_calls")):
        tool, function = choice.tool(len(choice.tools)), mapping(call.get("function"))
        answer.name_tool(tool, function.get("name"), call.get("id"))
        answer.add(tool.arguments, dumps(function.get("arguments") or {}))


def leaves(stated: Mapping) -> Leaves | None:
    given = count(stated, "prompt_eval_count")
    return None if given is None else Leaves(input_tokens=given, output_tokens=count(stated, "eval_count") or 0)


def prompt(body: Mapping) -> Prompt:
    if "messages" in body:
        found = openai_chat.prompt(body)
        found.uncounted = found.uncounted or any("images" in message for message in mappings(body["messages"]))
        return found
    given = [body.get("system"), body.get("prompt"), body.get("input"), *items(body.get("input"))]
    texts = [piece for piece in given if isinstance(piece, str)]
    return Prompt([Turn(texts)], uncounted=not texts or "images" in body or "context" in body, chat=False)
