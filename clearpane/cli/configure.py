"""`clearpane config`: every setting with its value now, its default and its meaning; secrets are not shown."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearpane import settings as configuration
from clearpane.settings import Settings

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse gives its type no other name


def register(commands: "Commands") -> None:
    parser = commands.add_parser("config", help="check the settings and print them as TOML")
    parser.set_defaults(run=_print)


def _print(arguments: argparse.Namespace, settings: Settings) -> int:
    for name, field in configuration.fields().items():
        value = getattr(settings, name)
        shown = '"(set, not shown)"' if field.metadata.get("secret") and value is not None else as_toml(value)
        print(f"# {field.metadata['meaning']}")
        print(f"{name} = {shown}" if value is not None else f"# {name} =")
    return 0


def as_toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{key}" = {as_toml(item)}' for key, item in value.items()) + " }" if value else "{}"
    text = str(value) if isinstance(value, Path | str) else repr(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
