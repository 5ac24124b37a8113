"""OpenAI's chat completions."""

from collections.abc import Iterator

from clearpane.cli.fake import prose, tools
from clearpane.cli.fake.answer import CREATED, DONE, FINGERPRINT, Answer, Asked, Frame, Json, data
from clearpane.cli.fake.models import Tokens, find
from clearpane.cli.fake.refusal import Refusal

_CHOICES_MAX = 8


def chat(asked: Asked) -> Answer:
    asked.need("model", "messages")
    model = find(asked.body["model"], "openai")
    _check_temperature(asked.body)
    messages, reason = _messages(asked.body)
    prompt = prose.words(asked.body["messages"]) + tools.words(asked.body.get("tools"))
    tokens = model.count(prompt, sum(map(_message_tokens, messages)))
    usage = _usage(tokens)
    head: Json = {"id": asked.id("chatcmpl-"), "object": "chat.completion", "created": CREATED, "model": model.snapshot}
    tail: Json = {"service_tier": "default", "system_fingerprint": FINGERPRINT}
    choices = [{"index": index, "message": message, "logprobs": None, "finish_reason": reason} for index, message in enumerate(messages)]
    stated = usage if asked.states_usage else None
    frames = tuple(_frames({**head, "object": "chat.completion.chunk", **tail}, choices, stated)) if asked.streamed else ()
    body = {**head, "choices": choices, "usage": usage, **tail}
    return Answer(id=head["id"], model=model, tokens=tokens, usage=stated, body=body, frames=frames)


def _check_temperature(body: Json) -> None:
    if isinstance(given := body.get("temperature"), int | float) and given > 2:
        message = f"Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got {given} instead."
        raise Refusal(400, message, param="temperature", code="decimal_above_max_value")


def _messages(body: Json) -> tuple[list[Json], str]:
    """The answer's messages (one per choice) and their finish reason."""
    question = prose.last_text(body["messages"])
    wanted = body["messages"][-1].get("role") != "tool" and body.get("tool_choice") != "none"
    calls = tools.calls(body.get("tools"), question, wanted=wanted)
    choices = min(body.get("n") or 1, _CHOICES_MAX)
    if calls:
        listed = [
            {"id": f"call_{index:08d}", "type": "function", "function": {"name": name, "arguments": text}}
            for index, (name, text) in enumerate(calls)
        ]
        return [{"role": "assistant", "content": None, "tool_calls": listed, "refusal": None, "annotations": []}] * choices, "tool_calls"
    text, cut = _text(body, question)
    return [{"role": "assistant", "content": text, "refusal": None, "annotations": []}] * choices, "length" if cut else "stop"


def _text(body: Json, question: str) -> tuple[str, bool]:
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return tools.arguments(wanted["json_schema"].get("schema"), "this"), False
    return prose.answer(question, body.get("max_completion_tokens") or body.get("max_tokens"))


def _message_tokens(message: Json) -> int:
    calls = message.get("tool_calls") or []
    return prose.count(message["content"] or "") + sum(1 + prose.count(call["function"]["arguments"]) for call in calls)


def _usage(tokens: Tokens) -> Json:
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": tokens.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _frames(head: Json, choices: list[Json], stated: Json | None) -> Iterator[Frame]:
    # A usage of null stands in every chunk but the last, only when usage was asked for.
    rest: Json = {"usage": None} if stated is not None else {}
    for choice in choices:
        for delta in _deltas(choice["message"]):
            part = {"index": choice["index"], "delta": delta, "logprobs": None, "finish_reason": None}
            yield data({**head, "choices": [part], **rest}, token=True)
        last = {"index": choice["index"], "delta": {}, "logprobs": None, "finish_reason": choice["finish_reason"]}
        yield data({**head, "choices": [last], **rest})
    if stated is not None:
        yield data({**head, "choices": [], "usage": stated})
    yield DONE


def _deltas(message: Json) -> Iterator[Json]:
    yield {"role": "assistant", "content": "" if message["content"] is not None else None, "refusal": None}
    for piece in prose.pieces(message["content"] or ""):
        yield {"content": piece}
    for index, call in enumerate(message.get("tool_calls") or []):
        yield {"tool_calls": [{"index": index, **call, "function": {"name": call["function"]["name"], "arguments": ""}}]}
        for piece in tools.halves(call["function"]["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
