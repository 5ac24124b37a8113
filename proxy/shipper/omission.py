"""Omission: what is left of a body that must not be recorded. Pure.

Of JSON, server-sent events and JSON lines the skeleton stays from which usage, model and outcome are read: the
structures and fields named here, and nothing else. No prompt, answer, tool argument or name is in it. What is left of a
message of an AWS event stream is written as an event, of a form as the JSON of its fields.
"""

import re
from base64 import b64decode, b64encode
from typing import Any

import orjson

from clearpane.contract import eventstream, multipart

# Objects and lists that are gone into. All other ones vanish with what they hold.
_STRUCTURES = frozenset({
    "choices", "delta", "message", "response", "candidates", "error", "incomplete_details", "output", "item", "content_block",
    "stream_options", "generationConfig", "generation_config", "thinkingConfig", "thinking", "reasoning", "promptFeedback",
    "inferenceConfig", "session", "setup", "serverContent", "action", "body", "details", "embedding", "embeddings", "embeddingsByType",
    "generations", "groundingMetadata", "inlinedResponses", "messageStop", "messageStart", "meta", "outputs", "performanceConfig",
    "predictions", "prefill", "result", "results", "serviceTier", "textGenerationConfig", "token",
})  # fmt: skip
# The same, but only within the one named: elsewhere they hold what was said.
_WITHIN = {("audio", "input"), ("session", "audio"), ("input", "transcription")}
# That they are there tells one form from another.
_MARKS = frozenset({"custom_id", "key", "request"})
# Nova's last event states its usage in it; everybody else's holds what a caller says.
_METADATA = "metadata"
# A text to be spoken is billed by its characters: their number stays.
_SPOKEN = "input"
# Of queries it is told how many different ones there are.
_QUERIES = "webSearchQueries"
# Everything below these is numbers and kinds by definition.
_MEASURES = frozenset({
    "usage", "usageMetadata", "usage_metadata", "token_usage", "billed_units", "tokens", "metrics", "x_groq",
    "amazon-bedrock-invocationMetrics", "prompt_tokens_details", "completion_tokens_details", "statistics",
})  # fmt: skip
# Texts that stay if they look like an identifier.
_TEXTS = frozenset({
    "model", "modelVersion", "model_version", "id", "responseId", "response_id", "object", "type", "service_tier", "serviceTier",
    "system_fingerprint", "finish_reason", "finishReason", "stop_reason", "stopReason", "status", "reason", "blockReason", "code",
    "completionReason", "event_type", "latency", "quality", "size",
    "effort", "reasoning_effort", "created_at", "createTime", "done_reason", "event_id", "previous_response_id", "anthropic_version",
})  # fmt: skip
# The JSON of a WebSocket's message within its line, in base64 where the message was binary (Gemini's are).
_MESSAGE = "data"
# A list of what was made, of which the length matters.
_MADE = "data"
_NUMBERS = frozenset({
    "created", "created_at", "at_ms", "index", "n", "seed", "temperature", "top_p", "top_k", "topP", "topK", "max_tokens", "maxTokens",
    "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "max_tokens_to_sample", "budget_tokens", "thinkingBudget",
    "candidateCount", "frequency_penalty", "presence_penalty", "frequencyPenalty", "presencePenalty", "stream", "include_usage",
    "store", "done", "turnComplete", "background", "logprobs", "top_logprobs", "parallel_tool_calls", "sequence_number", "dimensions",
    "code", "status", "completed_at", "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count",
    "eval_duration", "prompt_token_count", "generation_token_count", "inputTextTokenCount", "totalOutputTextTokenCount", "tokenCount",
    "generated_tokens", "input_length", "special", "is_finished", "duration", "maxTokenCount", "max_gen_len",
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


def of_bytes(data: bytes) -> str | None:
    """The same, of whatever a body may be."""
    if eventstream.starts(data):
        return _of_messages(data)
    if multipart.boundary(data) is not None:
        return _of_json(orjson.dumps(multipart.fields(data)).decode())
    try:
        return skeleton(data.decode())
    except UnicodeDecodeError:
        return None


def _of_messages(data: bytes) -> str | None:
    events: list[str] = []
    for message in eventstream.decode(data).messages:
        name, payload = message.name, message.content
        kept = _of_json(payload.decode("utf-8", "replace")) if payload is not None else None
        if kept is not None and _KIND.fullmatch(name):
            events.append(f"event: {name}\ndata: {kept}\n\n")
    return "".join(events) or None


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


def _structure(value: Any, depth: int, within: str = "") -> Any:
    if depth > _DEPTH_MAX:
        return None
    if isinstance(value, list):
        return [kept for item in value if (kept := _structure(item, depth + 1, within)) is not None]
    if not isinstance(value, dict):
        return None
    found = {key: _field(key, item, depth, within) for key, item in value.items()}
    return {key: kept for key, kept in found.items() if kept is not None}


def _field(key: str, value: Any, depth: int, within: str) -> Any:
    if key in _MEASURES:
        return _measures(value, depth + 1)
    if key in _MARKS:
        return True
    if key == _QUERIES:
        return _counted(value)
    if key == _SPOKEN and depth == 0 and isinstance(value, str):
        return len(value)
    if key == _MADE and isinstance(value, list):
        return _structure(value, depth + 1, key)
    if key == _METADATA and isinstance(value, dict):
        return _structure({name: value[name] for name in ("usage", "metrics") if name in value}, depth + 1, key) or None
    if isinstance(value, dict | list):
        return _structure(value, depth + 1, key) if key in _STRUCTURES or (within, key) in _WITHIN else None
    if key == _MESSAGE and isinstance(value, str):
        return _of_message(value) if depth == 0 else None
    if isinstance(value, str):
        return value if key in _TEXTS and _IDENTIFIER.fullmatch(value) else None
    return value if key in _NUMBERS else None


def _counted(queries: Any) -> list[str]:
    """Numbers in their place, equal ones for equal queries; an empty one is none."""
    given = [query for query in queries if isinstance(query, str) and query] if isinstance(queries, list) else []
    numbers = {query: str(number) for number, query in enumerate(dict.fromkeys(given), 1)}
    return [numbers[query] for query in given]


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
