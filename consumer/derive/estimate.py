"""Usage where the provider stated none: a cut stream, a server that does not count. Marked `estimated`, with its method.

The figures behind each method stand in docs/money.md; `bench/counting.py` makes them.
"""

from dataclasses import dataclass

from consumer.derive import framing, images, rendering, tokens
from consumer.derive.answer import Answer, Choice
from consumer.derive.framing import Framing
from consumer.derive.request import Prompt, Turn
from consumer.derive.tokens import Counter
from consumer.derive.untrusted import Mapping, mapping, short, text

# What was counted beyond texts, and how far it is off: docs/money.md has the measurement.
_TOOLS = "tools as rendered, mostly within 1 %"
_IMAGES = "images by size, mostly within 1 %"


@dataclass(frozen=True, slots=True)
class Estimate:
    tokens: int
    method: str


def of_prompt(prompt: Prompt, model: str | None, asked: Mapping | None = None) -> Estimate:
    """`asked` is the request's JSON: images, formats and calls of tools are counted only with it."""
    encoding, own = tokens.encoding_of(model)
    counter, whole = Counter(encoding), asked or {}
    total = sum(counter.count(*turn.texts) for turn in prompt.turns)
    if not prompt.chat:
        return Estimate(total, _method(encoding, own))
    shape = framing.of(tokens.plain(model), encoding)
    total += sum(_frame(turn, counter) for turn in prompt.turns) + shape.priming
    total += framing.tools(prompt.tools, shape, counter, whole) + framing.history(whole, shape, counter) + _format(whole, counter)
    seen, unseen = _images(whole, model) if own else (0, bool(images.find(whole)))
    missed = unseen or images.others(whole) if asked is not None and own else prompt.uncounted
    remark = "images, files and history not counted" if missed else None
    return Estimate(total + seen, _method(encoding, own, _TOOLS if prompt.tools and own else None, _IMAGES if seen else None, remark))


def of_answer(answer: Answer, model: str | None, *, scale: float = 1.0) -> Estimate:
    """`scale`: bytes of the whole answer over bytes kept, where the record holds only its beginning."""
    encoding, own = tokens.encoding_of(model)
    counter, shape = Counter(encoding), framing.of(tokens.plain(model), encoding)
    total = sum(counter.count(*_pieces(choice)) for choice in answer.choices.values())
    around = sum(_around(choice, shape, counter) for choice in answer.choices.values()) if own else 0
    scaled = "scaled to the answer's bytes" if scale > 1 else None
    hidden = "hidden reasoning not counted" if tokens.reasons_hidden(model) else None
    return Estimate(round(total * scale) + around, _method(encoding, own, scaled, hidden))


def _around(choice: Choice, shape: Framing, counter: Counter) -> int:
    return framing.answered(_calls(choice), shape, counter) + (shape.answered_text if choice.text else 0)


def _images(asked: Mapping, model: str | None) -> tuple[int, bool]:
    """(tokens, whether there is one that cannot be counted)."""
    found = [images.tokens(image, tokens.plain(model)) for image in images.find(asked)]
    return sum(each for each in found if each is not None), None in found


def _format(asked: Mapping, counter: Counter) -> int:
    """A JSON schema that the answer has to follow: chat completions and responses name it differently."""
    stated = mapping(mapping(asked.get("response_format")).get("json_schema")) or mapping(mapping(asked.get("text")).get("format"))
    schema = mapping(stated.get("schema"))
    if not schema:
        return 0
    shown = rendering.response_format(short(stated.get("name")) or "", text(stated.get("description")) or "", schema)
    return framing.MESSAGE + counter.count("system", shown)


def _pieces(choice: Choice) -> list[str]:
    called = [piece for name, arguments in _calls(choice) for piece in (name, arguments)]
    return ["".join(choice.text), "".join(choice.reasoning), "".join(choice.refusal), *called]


def _calls(choice: Choice) -> list[framing.Call]:
    return [(tool.name or "", "".join(tool.arguments)) for tool in choice.tools.values()]


def _method(encoding: str, own: bool, *remarks: str | None) -> str:
    parts = [f"tiktoken {encoding}", None if own else "not the model's own encoding", *remarks]
    return "; ".join(part for part in parts if part)


def _frame(turn: Turn, counter: Counter) -> int:
    return framing.MESSAGE + counter.count(turn.role, turn.name) + (framing.NAME if turn.name else 0)
