"""What a prompt and an answer cost beyond their texts, by model: the tokens around messages, tools and calls of tools.

Messages by OpenAI's published rule (3 a message, 1 a name, 3 to prime the answer), https://github.com/openai/openai-cookbook,
"How to count tokens with tiktoken". Tools and their calls by the text that the models are given, and by what OpenAI counted of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from consumer.derive import rendering
from consumer.derive.tokens import Counter
from consumer.derive.untrusted import Malformed, Mapping, dumps, loads, mapping, mappings, text

MESSAGE, NAME = 3, 1
_PARALLEL_CALL, _PARALLEL_CALLS = 4, 4
_ROLE = 1  # items of a response's input name none

Call = tuple[str, str]  # name, arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    priming: int = 3
    heading: bool = False
    tools: int = 9
    tools_in_chat: int = 0
    with_parameters: int = 0  # for each tool
    described: int = 0
    property_described: int = 0
    forced: int = 0  # a tool must be called
    beside_system: int = -4  # tools and a system message share one
    call: int = 5  # a call of a tool and its result
    call_names: int = 1  # how often its name stands there once more
    answered_text: int = 0
    answered_call: int = 7
    answered_calls: int = 10
    wrapped: bool = True  # parallel calls are one call of a wrapper


_OLDER = Framing()
_NEWER = Framing(with_parameters=-1, described=-1, property_described=2)
_REASONING = Framing(
    priming=2,
    heading=True,
    tools=2,
    tools_in_chat=82,
    beside_system=0,
    call=9,
    call_names=2,
    answered_text=3,  # the name of the channel
    answered_call=16,
    answered_calls=0,
    wrapped=False,
)
# Its template opens with a system message that nobody sent.
_OPEN_WEIGHTS = replace(_REASONING, priming=64, tools=24, tools_in_chat=0, call=0)

# Anthropic's published prompt for tools: 346, or 313 where one must be called.
# https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview
_CLAUDE = Framing(tools=346, forced=-33, beside_system=0)


def of(model: str, encoding: str) -> Framing:
    if "claude" in model:
        return _CLAUDE
    if model.startswith("gpt-oss"):
        return _OPEN_WEIGHTS
    if model.startswith(("gpt-5", "gpt-6", "o1", "o3", "o4")):
        return _REASONING
    return _NEWER if encoding == "o200k_base" else _OLDER


def tools(functions: list[Mapping], framing: Framing, counter: Counter, asked: Mapping) -> int:
    if not functions:
        return 0
    total = counter.count(rendering.tools(functions, heading=framing.heading)) + framing.tools
    if "messages" in asked:
        total += framing.tools_in_chat
    if has_system(asked):
        total += framing.beside_system
    if mapping(asked.get("tool_choice")).get("type") in ("any", "tool"):
        total += framing.forced
    return total + sum(_trimmed(each, framing) for each in functions)


def _trimmed(function: Mapping, framing: Framing) -> int:
    found = rendering.properties(mapping(function.get("parameters")))
    described = sum(1 for value in found.values() if text(mapping(value).get("description")))
    total = framing.with_parameters * bool(found) + framing.described * bool(text(function.get("description")))
    return total + framing.property_described * described


def has_system(asked: Mapping) -> bool:
    turns = mappings(asked.get("messages")) + mappings(asked.get("input"))
    return bool(text(asked.get("instructions"))) or any(turn.get("role") in ("system", "developer") for turn in turns)


def calls(asked: Mapping) -> list[list[Call]]:
    """Those of earlier turns: one list for each message that holds any."""
    told = [[_call(mapping(call.get("function"))) for call in mappings(turn.get("tool_calls"))] for turn in mappings(asked.get("messages"))]
    return [each for each in told if each] + [[_call(item)] for item in mappings(asked.get("input")) if item.get("type") == "function_call"]


def _call(function: Mapping) -> Call:
    return text(function.get("name")) or "", text(function.get("arguments")) or ""


def history(asked: Mapping, framing: Framing, counter: Counter) -> int:
    """What the calls of earlier turns cost beyond their names and arguments."""
    roles = 2 * _ROLE if "messages" not in asked else 0
    return sum(_told(each, framing, counter) + roles * len(each) for each in calls(asked))


def _told(made: Sequence[Call], framing: Framing, counter: Counter) -> int:
    if len(made) > 1 and framing.wrapped:
        return _wrapper(made, counter) + _PARALLEL_CALL * len(made) + _PARALLEL_CALLS
    return sum(framing.call + framing.call_names * counter.count(name) for name, _ in made)


def answered(made: Sequence[Call], framing: Framing, counter: Counter) -> int:
    """What the calls of an answer cost beyond their names and arguments."""
    if len(made) > 1 and framing.wrapped:
        return _wrapper(made, counter) + framing.answered_calls
    return framing.answered_call * len(made)


def _wrapper(made: Sequence[Call], counter: Counter) -> int:
    shown = ",".join(f'{{"recipient_name":{dumps(f"functions.{name}")},"parameters":{_compact(arguments)}}}' for name, arguments in made)
    return counter.count(f'{{"tool_uses":[{shown}]}}') - counter.count(*(each for call in made for each in call))


def _compact(arguments: str) -> str:
    try:
        return dumps(loads(arguments.encode("utf-8", "replace")))
    except Malformed:
        return arguments
