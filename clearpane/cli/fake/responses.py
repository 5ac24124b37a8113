"""OpenAI's Responses API: the answer as a list of items, and its stream of typed events."""

from collections.abc import Iterator
from typing import Any

from clearpane.cli.fake import prose, tools
from clearpane.cli.fake.answer import CREATED, Answer, Asked, Frame, Json, named
from clearpane.cli.fake.models import Model, Tokens, find


def response(asked: Asked) -> Answer:
    asked.need("model", "input")
    body, model = asked.body, find(asked.body["model"], "openai")
    items, cut = _output(asked, model)
    prompt = prose.words(body.get("instructions"), body["input"]) + tools.words(body.get("tools"))
    tokens = model.count(prompt, sum(map(_item_tokens, items)))
    usage = _usage(tokens)
    draft = _draft(asked, model)
    ended: Json = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}} if cut else {"status": "completed"}
    whole = {**draft, **ended, "output": items, "usage": usage}
    frames = tuple(_frames(draft, whole)) if asked.streamed else ()
    return Answer(id=draft["id"], model=model, tokens=tokens, usage=usage, body=whole, frames=frames)


def _output(asked: Asked, model: Model) -> tuple[list[Json], bool]:
    given = asked.body["input"]
    items: list[Json] = [{"id": asked.id("rs_"), "type": "reasoning", "summary": []}] if model.reasons else []
    wanted = not (isinstance(given, list) and given[-1].get("type") == "function_call_output") and asked.body.get("tool_choice") != "none"
    question = prose.last_text(given)
    if calls := tools.calls(asked.body.get("tools"), question, wanted=wanted):
        return items + [_call(asked, index, name, text) for index, (name, text) in enumerate(calls)], False
    text, cut = prose.answer(question, asked.body.get("max_output_tokens"))
    status = "incomplete" if cut else "completed"
    content = [{"type": "output_text", "annotations": [], "logprobs": [], "text": text}]
    return [*items, {"id": asked.id("msg_"), "type": "message", "status": status, "content": content, "role": "assistant"}], cut


def _call(asked: Asked, index: int, name: str, arguments: str) -> Json:
    return {
        "id": asked.id("fc_", str(index)),
        "type": "function_call",
        "status": "completed",
        "arguments": arguments,
        "call_id": f"call_{index:08d}",
        "name": name,
    }


def _item_tokens(item: Json) -> int:
    if item["type"] == "function_call":
        return 1 + prose.count(item["arguments"])
    return sum(prose.count(part["text"]) for part in item.get("content", []))


def _usage(tokens: Tokens) -> Json:
    return {
        "input_tokens": tokens.prompt,
        "input_tokens_details": {"cached_tokens": tokens.cache_read, "cache_write_tokens": 0},
        "output_tokens": tokens.completion,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.prompt + tokens.completion,
    }


def _draft(asked: Asked, model: Model) -> Json:
    body = asked.body
    return {
        "id": asked.id("resp_"),
        "object": "response",
        "created_at": CREATED,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": model.snapshot,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": "medium" if model.reasons else None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": body.get("temperature", 1.0),
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": None,
        "metadata": body.get("metadata") or {},
    }


def _frames(draft: Json, whole: Json) -> Iterator[Frame]:
    """Every event carries its number; the last one the whole answer."""
    for number, (kind, fields, token) in enumerate(_events(draft, whole)):
        yield named({"type": kind, "sequence_number": number, **fields}, token=token)


def _events(draft: Json, whole: Json) -> Iterator[tuple[str, Json, bool]]:
    yield "response.created", {"response": draft}, False
    yield "response.in_progress", {"response": draft}, False
    for index, item in enumerate(whole["output"]):
        empty = {**item, **({"content": []} if item["type"] == "message" else {}), **({"arguments": ""} if "arguments" in item else {})}
        if "status" in item:
            empty["status"] = "in_progress"
        yield "response.output_item.added", {"output_index": index, "item": empty}, False
        yield from _item_events(index, item)
        yield "response.output_item.done", {"output_index": index, "item": item}, False
    yield f"response.{whole['status']}", {"response": whole}, False


def _item_events(index: int, item: Json) -> Iterator[tuple[str, Json, bool]]:
    at: Json = {"item_id": item["id"], "output_index": index}
    if item["type"] == "function_call":
        for piece in tools.halves(item["arguments"]):
            yield "response.function_call_arguments.delta", {**at, "delta": piece}, True
        yield "response.function_call_arguments.done", {**at, "name": item["name"], "arguments": item["arguments"]}, False
    elif item["type"] == "message":
        yield from _text_events({**at, "content_index": 0}, item["content"][0])


def _text_events(at: Json, part: dict[str, Any]) -> Iterator[tuple[str, Json, bool]]:
    yield "response.content_part.added", {**at, "part": {**part, "text": ""}}, False
    for piece in prose.pieces(part["text"]):
        yield "response.output_text.delta", {**at, "delta": piece, "logprobs": []}, True
    yield "response.output_text.done", {**at, "text": part["text"], "logprobs": []}, False
    yield "response.content_part.done", {**at, "part": part}, False
