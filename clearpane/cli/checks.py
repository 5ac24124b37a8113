"""What is wrong in settings that only their part can tell: names of upstreams, the price overlay."""

from pathlib import Path

from clearpane.settings import Settings
from proxy.routes import BUILT_IN, DEFAULT


def problems(settings: Settings, *, consumer: bool = True) -> list[str]:
    """All at once, one line each: where it stands, what is wrong, what to do. Without a consumer nobody reads the overlay."""
    return _of_include_usage(settings) + (_of_overlay(settings.price_overlay) if consumer and settings.price_overlay else [])


def _of_include_usage(settings: Settings) -> list[str]:
    known = {DEFAULT, *BUILT_IN, *settings.upstream}
    strange = [name for name in settings.include_usage if name not in known]
    return [f"include_usage: {name!r}: no upstream of this name; known are {', '.join(sorted(known))}" for name in strange]


def _of_overlay(file: Path) -> list[str]:
    """Nothing where the consumer is not installed: nobody there reads the file."""
    try:
        from consumer.derive import BadOverlay
        from consumer.derive.prices import open_book
    except ImportError:
        return []
    try:
        open_book(file)
    except BadOverlay as error:
        return error.problems
    return []
