"""Cohere's own chat (v1 and v2) and embeddings: https://docs.cohere.com/v2/reference/chat

`billed_units` is what Cohere charges for; `tokens` counts its own framing of the prompt too, and cached tokens are within that.
v1 streams JSON lines (or events) that say `event_type`, v2 events that say `type`.
"""

from typing import Any

from consumer.derive.answer import Answer, Choice
from consumer.derive.families import openai_chat
from consumer.derive.request import Prompt, Request, Turn, kind, params
from consumer.derive.untrusted import Mapping, count, dumps, items, mapping, mappings, short, text
from consumer.derive.usage import Leaves, rest

NAME = "cohere"

EVENTS = frozenset({"message-start", "content-start", "content-delta", "tool-plan-delta", "tool-call-start", "message-end"})


def ask(body: Mapping, path: str) -> Request:
    return Request(
        model=short(body.get("model")),
        params=params(
            body,
            top_p=body.get("p"),
            top_k=body.get("k"),
            response_format=kind(body.get("response_format")),
            thinking=kind(body.get("thinking")),
        ),
        stream=body.get("stream") is True,
    )


def fold(answer: Answer, document: Mapping, event: str) -> None:
    choice = answer.choice(0)
    if "event_type" in document:
        _fold_v1_event(answer, choice, document)
    elif text(document.get("type")) in EVENTS or isinstance(document.get("delta"), dict):
        answer.understood = True
        _fold_event(answer, choice, document.get("index"), mapping(document.get("delta")))
    elif "embeddings" in document:
        answer.understood = answer.finished = True
        answer.state(document.get("meta"))
    elif "finish_reason" in document or isinstance(document.get("meta"), dict):
        _fold_whole(answer, choice, document)
    elif isinstance(document.get("message"), str):
        answer.fail(None)  # `{"message": text}`, no code


def _fold_whole(answer: Answer, choice: Choice, document: Mapping) -> None:
    answer.understood = True
    answer.state(document.get("usage") or document.get("meta"))
    answer.add(choice.text, document.get("text"))  # v1
    _fold_message(answer, choice, mapping(document.get("message")))
    for position, call in enumerate(mappings(document.get("tool_calls"))):
        _fold_tool(answer, choice, position, call)
    answer.finish(choice, document.get("finish_reason"))


def _fold_message(answer: Answer, choice: Choice, message: Mapping) -> None:
    for part in mappings(message.get("content")):
        _fold_part(answer, choice, part)
    answer.add(choice.reasoning, message.get("tool_plan"))
    for position, call in enumerate(mappings(message.get("tool_calls"))):
        _fold_tool(answer, choice, position, call)


def _fold_part(answer: Answer, choice: Choice, part: Mapping) -> None:
    answer.add(choice.text, part.get("text"))
    answer.add(choice.reasoning, part.get("thinking"))


def _fold_tool(answer: Answer, choice: Choice, at: Any, call: Mapping) -> None:
    tool, function = choice.tool(short(at)), mapping(call.get("function"))
    answer.name_tool(tool, function.get("name") or call.get("name"), call.get("id"))
    if "parameters" in call:  # v1
        answer.add(tool.arguments, dumps(call["parameters"]))
    answer.add(tool.arguments, function.get("arguments"))


def _fold_event(answer: Answer, choice: Choice, at: Any, delta: Mapping) -> None:
    message = mapping(delta.get("message"))
    if isinstance(message.get("content"), dict):
        _fold_part(answer, choice, message["content"])
    answer.add(choice.reasoning, message.get("tool_plan"))
    if isinstance(message.get("tool_calls"), dict):
        _fold_tool(answer, choice, at, message["tool_calls"])
    answer.state(delta.get("usage"))
    answer.finish(choice, delta.get("finish_reason"))
    if delta.get("error") is not None:
        answer.fail(None)


def _fold_v1_event(answer: Answer, choice: Choice, document: Mapping) -> None:
    answer.understood = True
    if document["event_type"] == "text-generation":
        answer.add(choice.text, document.get("text"))
    elif document["event_type"] == "stream-end":
        response = mapping(document.get("response"))
        answer.state(response.get("meta"))
        answer.finish(choice, document.get("finish_reason"))
        for position, call in enumerate(mappings(response.get("tool_calls"))):
            _fold_tool(answer, choice, position, call)


def leaves(stated: Mapping) -> Leaves | None:
    billed, counted = mapping(stated.get("billed_units")), mapping(stated.get("tokens"))
    if count(billed, "input_tokens") is None and count(billed, "output_tokens") is None:
        return _counted(counted, count(stated, "cached_tokens") or 0)
    return Leaves(
        input_tokens=count(billed, "input_tokens") or 0,
        input_image_tokens=count(billed, "image_tokens") or 0,
        output_tokens=count(billed, "output_tokens") or 0,
    )


def _counted(counted: Mapping, cached: int) -> Leaves | None:
    given, made = count(counted, "input_tokens"), count(counted, "output_tokens")
    if given is None and made is None:
        return None
    return Leaves(input_tokens=rest(given or 0, cached), cache_read_tokens=cached, output_tokens=made or 0)


def prompt(body: Mapping) -> Prompt:
    if "messages" in body:
        return openai_chat.prompt(body)
    history = [piece for turn in mappings(body.get("chat_history")) if (piece := text(turn.get("message")))]
    given = [body.get("preamble"), *history, body.get("message"), *items(body.get("texts"))]
    texts = [piece for piece in given if isinstance(piece, str)]
    return Prompt([Turn(texts)], uncounted=not texts or bool(body.get("documents") or body.get("images")), chat=False)
