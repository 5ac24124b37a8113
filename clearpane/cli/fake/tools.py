"""Which tools the fake model calls, with arguments that fit their JSON Schema."""

import re
from typing import Any

import orjson

from clearpane.cli.fake import prose

# A word with a capital that is not the first of its sentence.
_NAME = re.compile(r"(?<=\w[ ,])\s?([A-Z][\w-]+)")
_CALLS_MAX = 8
_SCHEMA_DEPTH_MAX = 8


def calls(tools: Any, question: str, *, wanted: bool) -> list[tuple[str, str]]:
    """(name, arguments as JSON) of each call of the first tool: one for each name in the question, else one."""
    if not tools or not wanted:
        return []
    first = function(tools[0])
    schema = first.get("parameters") or first.get("input_schema")
    return [(first["name"], arguments(schema, name)) for name in (names(question) or ["this"])[:_CALLS_MAX]]


def words(tools: Any) -> int:
    """Tokens of the tools' definitions: their descriptions, and one for each name."""
    return sum(1 + prose.count(function(tool).get("description") or "") for tool in tools or [])


def function(tool: dict[str, Any]) -> dict[str, Any]:
    """Chat completions wrap it, the others don't."""
    return tool.get("function") or tool


def names(text: str) -> list[str]:
    """Names of things (words with a capital, not at the start): what a tool is called for."""
    return _NAME.findall(text)


def arguments(schema: Any, name: str) -> str:
    """JSON that fits an object's schema; texts become `name`."""
    return orjson.dumps(_fill(schema, name, 0)).decode()


def _fill(schema: Any, name: str, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > _SCHEMA_DEPTH_MAX:
        return None
    if schema.get("enum"):
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {key: _fill(part, name, depth + 1) for key, part in schema.get("properties", {}).items()}
        case "array":
            return [_fill(schema.get("items"), name, depth + 1)]
        case "integer":
            return 3
        case "number":
            return 1.5
        case "boolean":
            return True
        case "string":
            return name
    return None


def halves(text: str) -> tuple[str, str]:
    """Arguments are streamed in pieces that are no JSON by themselves."""
    return text[: len(text) // 2], text[len(text) // 2 :]
