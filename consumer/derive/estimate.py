"""Usage where the provider stated none: a cut stream, a server that does not count. Marked `estimated`, with its method.

Chat framing and tools by the rules OpenAI published (3 tokens a message, 1 a name, 3 to prime the answer):
https://github.com/openai/openai-cookbook, "How to count tokens with tiktoken".
"""

from dataclasses import dataclass

from consumer.derive import tokens
from consumer.derive.answer import Answer, Choice
from consumer.derive.request import Prompt, Turn
from consumer.derive.tokens import Counter
from consumer.derive.untrusted import Mapping, items, mapping, text

_MESSAGE, _NAME, _PRIMING = 3, 1, 3
_TOOL_START = {"o200k_base": 7, "cl100k_base": 10}
_TOOLS_END, _PROPERTIES, _PROPERTY, _ENUM, _ENUM_ITEM = 12, 3, 3, -3, 3


@dataclass(frozen=True, slots=True)
class Estimate:
    tokens: int
    method: str


def of_prompt(prompt: Prompt, model: str | None) -> Estimate:
    encoding, own = tokens.encoding_of(model)
    counter = Counter(encoding)
    total = sum(counter.count(*turn.texts) for turn in prompt.turns)
    if prompt.chat:
        total += sum(_frame(turn, counter) for turn in prompt.turns) + _PRIMING
        total += _tools(prompt.tools, counter)
    return Estimate(total, _method(encoding, own, "images, files and history not counted" if prompt.uncounted else None))


def of_answer(answer: Answer, model: str | None, *, scale: float = 1.0) -> Estimate:
    """`scale`: bytes of the whole answer over bytes kept, where the record holds only its beginning."""
    encoding, own = tokens.encoding_of(model)
    counter = Counter(encoding)
    total = sum(counter.count(*_pieces(choice)) for choice in answer.choices.values())
    scaled = "scaled to the answer's bytes" if scale > 1 else None
    hidden = "hidden reasoning not counted" if tokens.reasons_hidden(model) else None
    return Estimate(round(total * scale), _method(encoding, own, scaled, hidden))


def _pieces(choice: Choice) -> list[str]:
    tools = [piece for tool in choice.tools.values() for piece in (tool.name or "", "".join(tool.arguments))]
    return ["".join(choice.text), "".join(choice.reasoning), "".join(choice.refusal), *tools]


def _method(encoding: str, own: bool, *remarks: str | None) -> str:
    parts = [f"tiktoken {encoding}", None if own else "not the model's own encoding", *remarks]
    return "; ".join(part for part in parts if part)


def _frame(turn: Turn, counter: Counter) -> int:
    return _MESSAGE + counter.count(turn.role, turn.name) + (_NAME if turn.name else 0)


def _tools(tools: list[Mapping], counter: Counter) -> int:
    return sum(_tool(tool, counter) for tool in tools) + _TOOLS_END if tools else 0


def _tool(tool: Mapping, counter: Counter) -> int:
    properties = mapping(mapping(tool.get("parameters")).get("properties"))
    total = _TOOL_START[counter.encoding] + counter.count(f"{text(tool.get('name')) or ''}:{_described(tool)}")
    total += _PROPERTIES if properties else 0
    return total + sum(_property(name, mapping(value), counter) for name, value in properties.items())


def _property(name: str, value: Mapping, counter: Counter) -> int:
    total = _PROPERTY + counter.count(f"{name}:{text(value.get('type')) or ''}:{_described(value)}")
    if options := [option for option in items(value.get("enum")) if isinstance(option, str)]:
        total += _ENUM + sum(_ENUM_ITEM + counter.count(option) for option in options)
    return total


def _described(source: Mapping) -> str:
    return (text(source.get("description")) or "").removesuffix(".")
