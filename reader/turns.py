"""What was asked, as turns of a conversation: from a request's JSON, whichever provider's form it has. Pure."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?[^,\s]{0,80};base64,([A-Za-z0-9+/=_-]+)")
_BASE64_SHOWN_MAX = 200  # characters; what is longer is a file


@dataclass(frozen=True, slots=True)
class Turn:
    role: str
    text: str


def turns(body: Any) -> list[Turn]:
    """Empty when the JSON holds no prompt that is known here. Never raises."""
    if not isinstance(body, dict):
        return []
    found = [
        Turn("system", text)
        for name in ("system", "instructions", "systemInstruction", "system_instruction")
        if (text := content(body.get(name)))
    ]
    for name in ("messages", "contents", "input", "prompt", "inputText", "query", "texts"):
        found += _turns_in(body.get(name))
    return found


def content(value: Any) -> str:
    """Text as it is; parts one below the other; what is neither as JSON, files by kind and size."""
    if value is None:
        return ""
    if isinstance(value, str):
        return _DATA_URL.sub(lambda found: f"[{found[1] or 'file'}, {len(found[2]) * 3 // 4:,} bytes]", value)
    if isinstance(value, list):
        return "\n".join(text for part in value if (text := content(part)))
    return _part(value) if isinstance(value, dict) else json.dumps(value)


def _turns_in(value: Any) -> list[Turn]:
    if isinstance(value, str):
        return [Turn("user", content(value))]
    if not isinstance(value, list):
        return []
    return [turn for each in value for turn in _turn(each)]


def _turn(value: Any) -> Iterator[Turn]:
    if not isinstance(value, dict):
        yield Turn("user", content(value))
        return
    role = value.get("role") or value.get("type") or "user"
    body = value.get("content", value.get("parts"))
    text = "\n".join(part for part in (content(body), *_calls(value)) if part)
    yield Turn(str(role), text or content({name: each for name, each in value.items() if name != "role"}))


def _calls(message: dict[str, Any]) -> Iterator[str]:
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        yield f"→ {function.get('name')}({content(function.get('arguments'))})" if isinstance(function, dict) else content(call)


def _part(part: dict[str, Any]) -> str:
    for name in ("text", "content", "parts"):
        if part.get(name) and isinstance(part[name], str | list):
            return content(part[name])
    if part.get("type") == "tool_use":
        return f"→ {part.get('name')}({json.dumps(part.get('input'), ensure_ascii=False)})"
    source = part.get("source") or part.get("inlineData") or part.get("inline_data")
    if isinstance(source, dict) and isinstance(source.get("data"), str):  # a file: Anthropic's form, Gemini's form
        return f"[{source.get('media_type') or source.get('mimeType') or 'file'}, {len(source['data']) * 3 // 4:,} bytes]"
    return content(json.dumps(_without_files(part), ensure_ascii=False))


def _without_files(value: Any) -> Any:
    """Long base64 becomes its size. Depth is bounded by the parser that made the value."""
    if isinstance(value, dict):
        return {name: _without_files(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_files(each) for each in value]
    if isinstance(value, str) and len(value) > _BASE64_SHOWN_MAX and re.fullmatch(r"[A-Za-z0-9+/=_-]+", value):
        return f"[{len(value) * 3 // 4:,} bytes]"
    return value
