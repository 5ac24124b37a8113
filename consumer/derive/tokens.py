"""Counting tokens with tiktoken's encodings, which lie in this package: no download, and their SHA-256 is checked."""

import base64
import hashlib
from functools import cache
from importlib.resources import files

import tiktoken

# Characters counted per record: counting must not hold up the log. A tenth of a second at worst.
TEXT_CHARS_MAX = 1 << 18

# File (as tiktoken's cache names it), SHA-256 and split pattern, as tiktoken publishes them (MIT, notice beside the files).
_O200K = (
    "fb374d419588a4632f3f557e76b4b70aebbca790",
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
)
_CL100K = (
    "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
)
_KNOWN = {"o200k_base": _O200K, "cl100k_base": _CL100K}

ENCODINGS = tuple(_KNOWN)

_CL100K_MODELS = ("gpt-4", "gpt-3.5", "gpt-35", "text-embedding-", "davinci-002", "babbage-002")
_O200K_MODELS = ("gpt-4o", "gpt-4.", "gpt-5", "gpt-6", "gpt-oss", "chatgpt-", "o1", "o3", "o4")
_HIDDEN_REASONING = ("gpt-5", "gpt-6", "o1", "o3", "o4")


class EncodingDamaged(Exception):
    """An encoding's file is not the one that was published."""


def encoding_of(model: str | None) -> tuple[str, bool]:
    """Name of the encoding, and whether it is the model's own; other families' models get the nearest, o200k_base."""
    name = plain(model)
    if name.startswith(_O200K_MODELS):
        return "o200k_base", True
    if name.startswith(_CL100K_MODELS):
        return "cl100k_base", True
    return "o200k_base", False


def reasons_hidden(model: str | None) -> bool:
    """The model bills reasoning that it does not show."""
    return plain(model).startswith(_HIDDEN_REASONING)


def plain(model: str | None) -> str:
    return (model or "").rpartition("/")[2].removeprefix("ft:")


class Counter:
    """Counts the texts of one record, each for itself. Texts beyond TEXT_CHARS_MAX are taken to be like those before.

    Raises EncodingDamaged.
    """

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        self._loaded = load(encoding)
        self._chars = 0
        self._tokens = 0

    def count(self, *texts: str) -> int:
        return sum(self._count(text) for text in texts if text)

    def _count(self, text: str) -> int:
        part = text[: TEXT_CHARS_MAX - self._chars]
        found = len(self._loaded.encode_ordinary(part)) if part else 0
        self._chars += len(part)
        self._tokens += found
        return found + round((len(text) - len(part)) * self._tokens / self._chars)


@cache
def load(encoding: str) -> tiktoken.Encoding:
    """Raises EncodingDamaged."""
    file, sha256, pattern = _KNOWN[encoding]
    data = (files("consumer.derive") / "encodings" / file).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise EncodingDamaged(f"{encoding}: the file {file} is not the published one; install clearpane again")
    return tiktoken.Encoding(encoding, pat_str=pattern, mergeable_ranks=_ranks(data), special_tokens={})


def _ranks(data: bytes) -> dict[bytes, int]:
    pairs = (line.split() for line in data.splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}
