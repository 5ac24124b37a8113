"""What a call is billed by whose provider counts no tokens: images, seconds of audio, characters, searches. Pure."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from consumer.derive.families import openai_audio, openai_images, rerank
from consumer.derive.reading import Reading
from consumer.derive.untrusted import COUNT_MAX, Mapping, items, mapping, text

# A call is billed for at least so many seconds: https://groq.com/pricing
_SECONDS_MIN = {"groq": Decimal(10)}


def name_of(reading: Reading) -> str | None:
    """The unit by which such a call is billed; None where it is tokens, or nothing."""
    if reading.family is openai_audio:
        return "characters" if reading.target.get("operation") == "speech" else "audio_seconds"
    return _NAMES.get(reading.family.NAME) if reading.family is not None else None


def count(reading: Reading) -> Decimal | None:
    """How many of them, as the provider stated or the bodies show; None when neither does."""
    unit = name_of(reading)
    if unit is None or reading.status is None or reading.status >= 400:
        return None
    return _COUNTS[unit](reading)


def _documents(reading: Reading) -> list[Mapping]:
    return [document.value for document in reading.response_body.documents if isinstance(document.value, dict)]


def _images(reading: Reading) -> Decimal | None:
    made = sum(len(items(document.get("data"))) for document in _documents(reading))
    return Decimal(made) if made else None


def _audio_seconds(reading: Reading) -> Decimal | None:
    """As billed, else how long it is."""
    found = [mapping(document.get("usage")).get("seconds") or document.get("duration") for document in _documents(reading)]
    stated = next((amount for each in found if (amount := _amount(each)) is not None), None)
    least = _SECONDS_MIN.get(text(reading.target.get("provider")) or "", Decimal(0))
    return None if stated is None else max(stated, least)


def _characters(reading: Reading) -> Decimal | None:
    """An omitted request has the number in place of the text."""
    given = reading.asked.get("input")
    return Decimal(len(given)) if isinstance(given, str) and given else _amount(given)


def _searches(reading: Reading) -> Decimal | None:
    return _amount(mapping(mapping(reading.answer.stated).get("billed_units")).get("search_units"))


def _amount(value: Any) -> Decimal | None:
    """A float's shortest text is what the provider wrote."""
    if isinstance(value, str) and value.replace(".", "", 1).isdecimal() and value.isascii() and len(value) < 20:
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= COUNT_MAX:
        return None
    return Decimal(repr(value))


_NAMES: dict[str, str] = {openai_images.NAME: "images", rerank.NAME: "searches"}
_COUNTS: dict[str, Callable[[Reading], Decimal | None]] = {
    "images": _images,
    "audio_seconds": _audio_seconds,
    "characters": _characters,
    "searches": _searches,
}
