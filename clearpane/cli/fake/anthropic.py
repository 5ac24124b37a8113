"""Anthropic's messages and models."""

from collections.abc import Iterator
from typing import Any

import orjson

from clearpane.cli.fake import prose, tools
from clearpane.cli.fake.answer import Answer, Asked, Frame, Json, named
from clearpane.cli.fake.models import CATALOGUE, Model, Tokens, find
from clearpane.cli.fake.refusal import Refusal

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_CREATED_AT = "2025-09-29T00:00:00Z"


def message(asked: Asked) -> Answer:
    body = asked.body
    for name in ("model", "max_tokens", "messages"):
        if not body.get(name):
            raise Refusal(400, f"{name}: Field required")
    model = find(body["model"], "anthropic")
    content, reason = _content(asked)
    tokens = _tokens(body, content)
    usage = _usage(tokens)
    head = {"id": asked.id("msg_01"), "type": "message", "role": "assistant", "model": model.snapshot}
    whole = {**head, "content": content, "stop_reason": reason, "stop_sequence": None, "usage": usage}
    frames = tuple(_frames(whole)) if asked.streamed else ()
    return Answer(id=head["id"], model=model, tokens=tokens, usage=usage, body=whole, frames=frames)


def models() -> Json:
    own = [_model(model) for model in CATALOGUE if model.maker == "anthropic"]
    return {"data": own, "has_more": False, "first_id": own[0]["id"], "last_id": own[-1]["id"]}


def model(name: str) -> Json:
    return _model(find(name, "anthropic"))


def error(refusal: Refusal, request_id: str) -> Json:
    kind = _KINDS.get(refusal.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": refusal.message}, "request_id": request_id}


def _content(asked: Asked) -> tuple[list[Json], str]:
    """The content blocks and the stop reason."""
    body = asked.body
    question = prose.last_text(body["messages"])
    calls = tools.calls(body.get("tools"), question, wanted=not _is_tool_result(body["messages"][-1]))
    if not calls:
        text, cut = prose.answer(question, body["max_tokens"])
        return [{"type": "text", "text": text}], "max_tokens" if cut else "end_turn"
    blocks: list[Json] = [{"type": "text", "text": "Let me look that up."}]
    for index, (name, arguments) in enumerate(calls):
        blocks.append({"type": "tool_use", "id": asked.id("toolu_01", str(index)), "name": name, "input": orjson.loads(arguments)})
    return blocks, "tool_use"


def _is_tool_result(last: Json) -> bool:
    content = last.get("content")
    return isinstance(content, list) and any(part.get("type") == "tool_result" for part in content)


def _tokens(body: Json, content: list[Json]) -> Tokens:
    """What is marked for the cache is written to it in a talk's first turn and read from it in the later ones."""
    prompt = prose.words(body.get("system"), body["messages"]) + tools.words(body.get("tools"))
    output = sum(map(_block_tokens, content))
    marked = [part for part in _parts(body) if part.get("cache_control")]
    cached = sum(prose.words(part) for part in marked)
    if any(turn.get("role") == "assistant" for turn in body["messages"]):
        return Tokens(input=prompt - cached, cache_read=cached, output=output)
    long = sum(prose.words(part) for part in marked if part["cache_control"].get("ttl") == "1h")
    return Tokens(input=prompt - cached, cache_write_5m=cached - long, cache_write_1h=long, output=output)


def _parts(body: Json) -> Iterator[dict[str, Any]]:
    for content in (body.get("system"), *(turn.get("content") for turn in body["messages"])):
        if isinstance(content, list):
            yield from content


def _block_tokens(block: Json) -> int:
    return prose.count(block["text"]) if block["type"] == "text" else 1 + len(block["input"])


def _usage(tokens: Tokens) -> Json:
    return {
        "input_tokens": tokens.input,
        "cache_creation_input_tokens": tokens.cache_write_5m + tokens.cache_write_1h,
        "cache_read_input_tokens": tokens.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write_5m,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h,
        },
        "output_tokens": tokens.output,
        "service_tier": "standard",
    }


def _frames(whole: Json) -> Iterator[Frame]:
    # The first event states the input and a placeholder of one output token; the last but one the sum.
    start = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
    yield named({"type": "message_start", "message": start})
    for index, block in enumerate(whole["content"]):
        empty = {**block, **({"text": ""} if block["type"] == "text" else {"input": {}})}
        yield named({"type": "content_block_start", "index": index, "content_block": empty})
        if index == 0:
            yield named({"type": "ping"})
        for delta in _deltas(block):
            yield named({"type": "content_block_delta", "index": index, "delta": delta}, token=True)
        yield named({"type": "content_block_stop", "index": index})
    ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield named({"type": "message_delta", "delta": ended, "usage": {"output_tokens": whole["usage"]["output_tokens"]}})
    yield named({"type": "message_stop"})


def _deltas(block: Json) -> Iterator[Json]:
    if block["type"] == "text":
        for piece in prose.pieces(block["text"]):
            yield {"type": "text_delta", "text": piece}
    else:
        for piece in ("", *tools.halves(orjson.dumps(block["input"]).decode())):
            yield {"type": "input_json_delta", "partial_json": piece}


def _model(model: Model) -> Json:
    return {"type": "model", "id": model.snapshot, "display_name": model.name, "created_at": _CREATED_AT}
