"""Images in a prompt of OpenAI's form: how large each is, and how many tokens the models make of it.

Tiles and patches by https://platform.openai.com/docs/guides/images-vision . For gpt-5-mini, gpt-5-nano and the models from gpt-5.2 on
the factors are those that are billed, which are not those of the guide:
https://community.openai.com/t/gpt-5-mini-image-input-token-calculation-discrepancy-with-official-faq-formula/1344040
"""

import base64
import binascii
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from consumer.derive.untrusted import Mapping, mapping, mappings, text

IMAGES_MAX = 1500
# Of an image, decoded to find its size: a JPEG has its own behind its metadata.
HEAD_BYTES = 256 << 10

_PATCH, _PATCHES_MAX = 32, 1536
_TILE, _LONG_SIDE_MAX, _SHORT_SIDE = 512, 2048, 768


@dataclass(frozen=True, slots=True)
class Image:
    """`size` is (width, height) in pixels; None where the request does not hold the image, or in a form not known here."""

    size: tuple[int, int] | None
    detail: str  # low, high, auto


@dataclass(frozen=True, slots=True)
class Patches:
    factor: float
    patches_max: int = _PATCHES_MAX


@dataclass(frozen=True, slots=True)
class Tiles:
    base: int
    tile: int


# Items of a response's input that hold all that is counted of them.
_TOLD = (None, "message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output")

# The longest beginning of the model's name counts.
_RULES: dict[str, Patches | Tiles] = {
    "gpt-4o": Tiles(85, 170),
    "chatgpt-4o": Tiles(85, 170),
    "gpt-4-": Tiles(85, 170),
    "gpt-4.1": Tiles(85, 170),
    "gpt-4.5": Tiles(85, 170),
    "gpt-4o-mini": Tiles(2833, 5667),
    "gpt-4.1-mini": Patches(1.62),
    "gpt-4.1-nano": Patches(2.46),
    "o1": Tiles(75, 150),
    "o3": Tiles(75, 150),
    "o4-mini": Patches(1.72),
    "codex-mini": Patches(1.72),
    "computer-use-preview": Tiles(65, 129),
    "gpt-5": Tiles(70, 140),
    "gpt-5-mini": Patches(1.2),
    "gpt-5-nano": Patches(1.5),
    "gpt-5.": Patches(1.2, 2500),
    "gpt-5.1": Tiles(70, 140),
    "gpt-5.2": Patches(1.2),
    "gpt-5.3": Patches(1.2),
}


def tokens(image: Image, model: str) -> int | None:
    """None where the model's rule or the image's size is not known."""
    name = max((start for start in _RULES if model.startswith(start)), key=len, default=None)
    rule = _RULES[name] if name else None
    if isinstance(rule, Tiles) and image.detail == "low":
        return rule.base
    if rule is None or image.size is None:
        return None
    return _tiled(image.size, rule) if isinstance(rule, Tiles) else math.ceil(_patches(image.size, rule.patches_max) * rule.factor)


def _tiled(size: tuple[int, int], rule: Tiles) -> int:
    width, height = size
    shrink = min(1.0, _LONG_SIDE_MAX / max(width, height))
    shrink *= min(1.0, _SHORT_SIDE / (min(width, height) * shrink))
    return rule.base + rule.tile * math.ceil(width * shrink / _TILE - 1e-9) * math.ceil(height * shrink / _TILE - 1e-9)


def _patches(size: tuple[int, int], patches_max: int) -> int:
    wide, high = size[0] / _PATCH, size[1] / _PATCH
    if math.ceil(wide) * math.ceil(high) <= patches_max:
        return math.ceil(wide) * math.ceil(high)
    shrink = math.sqrt(patches_max / (wide * high))
    fitted = max(min(math.floor(side * shrink) / (side * shrink) for side in (wide, high)), 1 / (max(wide, high) * shrink))
    return min(max(1, math.ceil(wide * shrink * fitted - 1e-9)) * max(1, math.ceil(high * shrink * fitted - 1e-9)), patches_max)


def find(asked: Mapping) -> list[Image]:
    """The images of a chat completion's messages or a response's input, at most IMAGES_MAX."""
    found: list[Image] = []
    for turn in mappings(asked.get("messages")) + mappings(asked.get("input")):
        for part in mappings(turn.get("content")) + mappings(turn.get("output")):
            if part.get("type") in ("image_url", "input_image") and len(found) < IMAGES_MAX:
                found.append(_image(part))
    return found


def others(asked: Mapping) -> bool:
    """It holds files, audio, or more than the request itself: an earlier answer, a stored prompt, hidden reasoning."""
    turns = mappings(asked.get("messages")) + mappings(asked.get("input"))
    kinds = {part.get("type") for turn in turns for part in mappings(turn.get("content")) + mappings(turn.get("output"))}
    earlier = any(asked.get(name) for name in ("previous_response_id", "conversation", "prompt"))
    known = {None, "text", "input_text", "output_text", "refusal", "image_url", "input_image"}
    hidden = any(turn.get("type") not in _TOLD for turn in mappings(asked.get("input")))
    hosted = any(tool.get("type") not in ("function", "custom", None) for tool in mappings(asked.get("tools")))
    return bool(kinds - known) or earlier or hidden or hosted


def _image(part: Mapping) -> Image:
    given = part.get("image_url")
    url = text(mapping(given).get("url")) or text(given) or ""
    detail = text(mapping(given).get("detail")) or text(part.get("detail")) or "auto"
    return Image(_size(_head(url)), detail)


def _head(url: str) -> bytes:
    """The first bytes of a data URL."""
    before, comma, coded = url.partition(",")
    if not before.startswith("data:image/") or not before.endswith(";base64") or not comma:
        return b""
    try:
        return base64.b64decode(coded[: HEAD_BYTES // 3 * 4])
    except (binascii.Error, ValueError):
        return b""


def _size(data: bytes) -> tuple[int, int] | None:
    try:
        found = next((read(data) for magic, read in _FORMS.items() if data.startswith(magic)), None)
    except (struct.error, IndexError):
        return None
    return found if found and min(found) > 0 else None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    for at in _segments(data):
        if 0xC0 <= data[at + 1] <= 0xCF and data[at + 1] not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
    return None


def _segments(data: bytes) -> Iterator[int]:
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        yield at
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


_FORMS = {b"\x89PNG\r\n\x1a\n": _png, b"\xff\xd8\xff": _jpeg, b"GIF8": _gif, b"RIFF": _webp}
