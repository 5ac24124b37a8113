"""What the fake model reads and says: words, one token each."""

import re
import zlib
from collections.abc import Iterator
from typing import Any

_SENTENCES = (
    "Every byte of this answer passed through untouched.",
    "A record of it is on its way to your own bucket.",
    "Nothing here was made up by a real model.",
    "The words are counted one by one, so the price is easy to check.",
    "Ask again and you will read exactly the same.",
    "Streams arrive piece by piece, as the provider sends them.",
)
_PIECE = re.compile(r"\s*\S+")
_ANSWER_WORDS_MAX = 4096


def count(text: str) -> int:
    """Tokens of the fake model: words."""
    return len(text.split())


def pieces(text: str) -> list[str]:
    """The words with the space before them; joined they are the text."""
    return _PIECE.findall(text)


def texts(content: Any) -> Iterator[str]:
    """Every text in a prompt: strings, lists of parts, messages."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            yield from texts(part)
    elif isinstance(content, dict):
        for key in ("text", "content", "output"):
            yield from texts(content.get(key))


def words(*contents: Any) -> int:
    return sum(count(text) for content in contents for text in texts(content))


def last_text(content: Any) -> str:
    return next(reversed(list(texts(content))), "")


def answer(question: str, words_max: object) -> tuple[str, bool]:
    """(text, whether it was cut at `words_max`)."""
    first = zlib.crc32(question.encode())
    told = " ".join(_SENTENCES[(first + step) % len(_SENTENCES)] for step in range(3))
    topic = " ".join(question.split()[:6]).rstrip(".,?!:")
    whole = pieces(f"You asked: “{topic}”. {told}" if topic else told)
    limit = words_max if isinstance(words_max, int) and words_max > 0 else _ANSWER_WORDS_MAX
    return "".join(whole[:limit]), len(whole) > limit
