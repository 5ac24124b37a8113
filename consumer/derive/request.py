"""What a caller asked for: the model, the parameters, and the prompt's texts (for an estimate)."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from consumer.derive.untrusted import Mapping, mapping, short


@dataclass(slots=True)
class Request:
    model: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    stream: bool = False
    service_tier: str | None = None
    speed: str | None = None


@dataclass(slots=True)
class Turn:
    """One message of a prompt, as it is counted."""

    texts: list[str]
    role: str = ""
    name: str = ""


@dataclass(slots=True)
class Prompt:
    turns: list[Turn]
    tools: list[Mapping] = field(default_factory=list)  # each {name, description, parameters}
    uncounted: bool = False  # it holds images, files or audio
    chat: bool = True  # messages cost more than their texts


# As OpenAI names them; a family maps its own names to these.
_SCALARS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "n",
    "max_tokens",
    "frequency_penalty",
    "presence_penalty",
    "reasoning_effort",
    "verbosity",
    "parallel_tool_calls",
    "tool_choice",
    "logprobs",
    "top_logprobs",
    "store",
    "truncation",
    "dimensions",
    "encoding_format",
    "service_tier",
)


def scalar(value: Any) -> str | int | float | bool | None:
    if isinstance(value, bool) or value is None:
        return value
    return value if isinstance(value, int | float) else short(value)


def params(body: Mapping, **renamed: Any) -> dict[str, Any]:
    """The inference parameters that were stated; `renamed` are values under a name other than OpenAI's."""
    stated = {**{name: body.get(name) for name in _SCALARS}, **renamed}
    return {name: found for name, value in stated.items() if (found := scalar(value)) is not None}


def kind(value: Any) -> str | None:
    """`tool_choice`, `response_format`, `thinking`: a text, or an object with a `type`."""
    return short(mapping(value).get("type")) or short(value)


def path_part(path: str, after: str) -> str | None:
    """The segment behind `after` in a path, without an `:action`: a model or a deployment."""
    _, found, tail = unquote(path.partition("?")[0]).partition(after)
    return short(tail.partition("/")[0].partition(":")[0]) if found else None
