"""Usage in leaf buckets: every token in exactly one. A provider's own counts overlap; each family says how."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from consumer.derive.untrusted import Malformed


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaves:
    """Numbers of tokens. Input: what is neither cached, nor audio, nor image. Output: without reasoning, audio, image."""

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    input_audio_tokens: int = 0
    input_image_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    output_audio_tokens: int = 0
    cache_read_audio_tokens: int = 0
    output_image_tokens: int = 0

    @property
    def total_input(self) -> int:
        return sum(getattr(self, name) for name in INPUT)

    @property
    def total_output(self) -> int:
        return sum(getattr(self, name) for name in OUTPUT)

    @property
    def total(self) -> int:
        return self.total_input + self.total_output


ALL = tuple(field.name for field in fields(Leaves))
OUTPUT = ("output_tokens", "reasoning_tokens", "output_audio_tokens", "output_image_tokens")
INPUT = tuple(name for name in ALL if name not in OUTPUT)


def rest(whole: int, *parts: int) -> int:
    """What of `whole` is in none of its parts. Raises Malformed when they are more than the whole."""
    if (left := whole - sum(parts)) < 0:
        raise Malformed("usage: the parts are more than the whole")
    return left


def total(parts: Iterable[Leaves]) -> Leaves | None:
    """Of several answers in one record; None when there is none."""
    found = list(parts)
    return Leaves(**{name: sum(getattr(part, name) for part in found) for name in ALL}) if found else None


def record(leaves: Leaves | None) -> dict[str, Any]:
    """The leaves as the record shows them; all null when unknown."""
    found = {name: getattr(leaves, name) if leaves else None for name in ALL}
    return {**found, "total_tokens": leaves.total if leaves else None}


def inclusive(
    *,
    prompt: int | None,
    completion: int | None,
    total: int | None,
    cached: int = 0,
    cached_audio: int = 0,
    written: int = 0,
    audio_in: int = 0,
    image_in: int = 0,
    reasoning: int = 0,
    audio_out: int = 0,
    image_out: int = 0,
) -> Leaves | None:
    """OpenAI's way of counting, which most others follow: cached tokens are inside the prompt's, reasoning inside
    the completion's. Where the numbers say otherwise, the numbers are right:

    - more cached than prompt tokens: they stand beside the prompt's;
    - as many written to the cache as read from it, and no room for both: OpenRouter names the same tokens twice;
    - cached, audio and image tokens above the prompt's: images or audio were read from the cache, and count as cached;
    - a total above prompt and completion by just the reasoning tokens (xAI): those stand beside the completion's;
    - a total above prompt and completion, no reasoning stated (Gemini's OpenAI form): the difference is thinking.

    None when nothing was counted. Raises Malformed.
    """
    if prompt is None and completion is None and total is None:
        return None
    completion = completion or 0
    prompt = rest(total, completion) if prompt is None and total is not None else prompt or 0
    read = cached + cached_audio
    if read > prompt or (read == 0 and written > prompt):
        prompt += read + written
    elif read + written > prompt:
        written = 0
    twice = max(read + written + audio_in + image_in - prompt, 0)
    image_in, twice = image_in - min(twice, image_in), twice - min(twice, image_in)
    moved = min(twice, audio_in, cached)
    audio_in, cached, cached_audio = audio_in - moved, cached - moved, cached_audio + moved
    hidden = (total or 0) - prompt - completion
    if hidden > 0 and reasoning in (0, hidden):
        completion += hidden
        reasoning = hidden
    elif reasoning > completion:
        completion += reasoning
    return Leaves(
        input_tokens=rest(prompt, cached, cached_audio, written, audio_in, image_in),
        cache_read_tokens=cached,
        cache_read_audio_tokens=cached_audio,
        cache_write_5m_tokens=written,
        input_audio_tokens=audio_in,
        input_image_tokens=image_in,
        output_tokens=rest(completion, reasoning, audio_out, image_out),
        reasoning_tokens=reasoning,
        output_audio_tokens=audio_out,
        output_image_tokens=image_out,
    )
