"""Omission: what is left of a body that must not be recorded. Pure.

Of JSON, server-sent events and JSON lines the skeleton stays from which usage, model and outcome are read: the
structures and fields named here, and nothing else. No prompt, answer, tool argument or name is in it.
"""

import re
from base64 import b64decode, b64encode
from typing import Any

import orjson

# Objects and lists that are gone into. All other ones vanish with what they hold.
_STRUCTURES = frozenset({
    "choices", "delta", "message", "response", "candidates", "error", "incomplete_details", "output", "item", "content_block",
    "stream_options", "generationConfig", "generation_config", "thinkingConfig", "thinking", "reasoning", "promptFeedback",
    "inferenceConfig", "session", "setup", "serverContent",
})  # fmt: skip
# Everything below these is numbers and kinds by definition.
_MEASURES = frozenset({
    "usage", "usageMetadata", "usage_metadata", "token_usage", "billed_units", "tokens", "metrics", "x_groq",
    "amazon-bedrock-invocationMetrics", "prompt_tokens_details", "completion_tokens_details",
})  # fmt: skip
# Texts that stay if they look like an identifier.
_TEXTS = frozenset({
    "model", "modelVersion", "model_version", "id", "responseId", "response_id", "object", "type", "service_tier", "serviceTier",
    "system_fingerprint", "finish_reason", "finishReason", "stop_reason", "stopReason", "status", "reason", "blockReason", "code",
    "effort", "reasoning_effort", "created_at", "createTime", "done_reason", "event_id", "previous_response_id", "anthropic_version",
})  # fmt: skip
# The JSON of a WebSocket's message within its line, in base64 where the message was binary (Gemini's are).
_MESSAGE = "data"
_NUMBERS = frozenset({
    "created", "created_at", "at_ms", "index", "n", "seed", "temperature", "top_p", "top_k", "topP", "topK", "max_tokens", "maxTokens",
    "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "max_tokens_to_sample", "budget_tokens", "thinkingBudget",
    "candidateCount", "frequency_penalty", "presence_penalty", "frequencyPenalty", "presencePenalty", "stream", "include_usage",
    "store", "done", "turnComplete", "background", "logprobs", "top_logprobs", "parallel_tool_calls", "sequence_number", "dimensions",
    "code", "status", "completed_at", "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count",
    "eval_duration",
})  # fmt: skip
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:/@+-]{1,200}")
_KIND = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_DEPTH_MAX = 16
_LINE_END = re.compile(r"\r\n|\r|\n")
_FIELD = re.compile(r"(event|data|retry):[ ]?(.*)", re.DOTALL)


def skeleton(text: str) -> str | None:
    """None when nothing of it may stay."""
    whole = _of_json(text)
    if whole is not None:
        return whole
    lines = [kept for line in _LINE_END.split(text) if (kept := _of_line(line)) is not None]
    # Without one line of JSON this is no stream, but a text that looks like one.
    return "\n".join(lines) if any("{" in line for line in lines) else None


def _of_line(line: str) -> str | None:
    """Of an event's or a JSON line; the empty line stays, for it ends an event."""
    if not line:
        return ""
    if (found := _FIELD.fullmatch(line)) is None:
        return _of_json(line)
    name, value = found[1], found[2]
    if name == "data" and value != "[DONE]":
        kept = _of_json(value)
        return None if kept is None else f"data: {kept}"
    return line if value == "[DONE]" or _KIND.fullmatch(value) else None


def _of_json(text: str) -> str | None:
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        kept = _structure(orjson.loads(text), 0)
    except orjson.JSONDecodeError:
        return None
    return None if kept is None else orjson.dumps(kept).decode()


def _structure(value: Any, depth: int) -> Any:
    if depth > _DEPTH_MAX:
        return None
    if isinstance(value, list):
        return [kept for item in value if (kept := _structure(item, depth + 1)) is not None]
    if not isinstance(value, dict):
        return None
    found = {key: _field(key, item, depth) for key, item in value.items()}
    return {key: kept for key, kept in found.items() if kept is not None}


def _field(key: str, value: Any, depth: int) -> Any:
    if key in _MEASURES:
        return _measures(value, depth + 1)
    if isinstance(value, dict | list):
        return _structure(value, depth + 1) if key in _STRUCTURES else None
    if key == _MESSAGE and isinstance(value, str):
        return _of_message(value) if depth == 0 else None
    if isinstance(value, str):
        return value if key in _TEXTS and _IDENTIFIER.fullmatch(value) else None
    return value if key in _NUMBERS else None


def _of_message(data: str) -> str | None:
    if (kept := _of_json(data)) is not None:
        return kept
    try:
        packed = _of_json(b64decode(data, validate=True).decode())
    except ValueError:
        return None
    return None if packed is None else b64encode(packed.encode()).decode()


def _measures(value: Any, depth: int) -> Any:
    if depth > _DEPTH_MAX:
        return None
    if isinstance(value, dict):
        return {key: kept for key, item in value.items() if (kept := _measures(item, depth + 1)) is not None}
    if isinstance(value, list):
        return [kept for item in value if (kept := _measures(item, depth + 1)) is not None]
    if isinstance(value, str):
        return value if _KIND.fullmatch(value) else None
    return value
