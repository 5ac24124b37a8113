"""What is known of an answer so far. Families fold documents into it: one for plain JSON, many for a stream."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from consumer.derive.untrusted import Mapping, short


@dataclass(slots=True)
class ToolCall:
    name: str | None = None
    id: str | None = None
    arguments: list[str] = field(default_factory=list)  # pieces of JSON text, as generated


@dataclass(slots=True)
class Choice:
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    tools: dict[Hashable, ToolCall] = field(default_factory=dict)
    latest: dict[int, ToolCall] = field(default_factory=dict)  # by index, where pieces of a call name only that
    finish_reason: str | None = None

    def tool(self, key: Hashable) -> ToolCall:
        if (found := self.tools.get(key)) is None:
            found = self.tools[key] = ToolCall()
        return found


@dataclass(slots=True)
class Answer:
    model: str | None = None
    model_version: str | None = None
    service_tier: str | None = None
    error_code: str | None = None
    error: bool = False  # the body states an error
    choices: dict[int, Choice] = field(default_factory=dict)
    stated: Mapping | None = None  # the provider's usage as given; later statements replace or complete earlier ones
    finished: bool = False  # the provider said that the answer is whole
    understood: bool = False  # at least one document had the family's form
    web_searches: int = 0
    file_searches: int = 0
    generated: int = 0  # pieces of generated content so far
    remark: str | None = None  # what the stated usage leaves out
    deferred: bool = False  # made in the background: a later request fetches it, and is the first to see what it used

    def choice(self, index: int) -> Choice:
        if (found := self.choices.get(index)) is None:
            found = self.choices[index] = Choice()
        return found

    def add(self, pieces: list[str], piece: Any) -> None:
        """A piece of generated content; empty ones are no content."""
        if isinstance(piece, str) and piece:
            pieces.append(piece)
            self.generated += 1

    def name_tool(self, tool: ToolCall, name: Any, call_id: Any) -> None:
        if found := short(name):
            tool.name = found
            self.generated += 1
        tool.id = short(call_id) or tool.id

    def finish(self, choice: Choice, reason: Any) -> None:
        if found := short(reason):
            choice.finish_reason = found
            self.finished = True

    def state(self, usage: Any) -> None:
        """Later counts complete earlier ones: a stream's last block wins, but what it leaves out still stands."""
        if isinstance(usage, dict) and usage:
            known = {name: value for name, value in usage.items() if value is not None}
            if self.stated is None:
                self.stated = known
            else:
                self.stated.update(known)

    def fail(self, code: Any) -> None:
        self.error = True
        self.error_code = self.error_code or short(code)


def record(answer: Answer) -> dict[str, Any]:
    """The first choice; `alternatives` holds the others where the caller asked for more than one."""
    shown = [_shown(choice) for _, choice in sorted(answer.choices.items())]
    first = shown[0] if shown else _shown(Choice())
    return {**first, "alternatives": shown[1:]} if len(shown) > 1 else first


def _shown(choice: Choice) -> dict[str, Any]:
    return {
        "text": "".join(choice.text) or None,
        "reasoning": "".join(choice.reasoning) or None,
        "refusal": "".join(choice.refusal) or None,
        "tool_calls": [{"id": tool.id, "name": tool.name, "arguments": "".join(tool.arguments) or None} for tool in choice.tools.values()],
    }
