"""`clearpane config`: every setting with its value now, its default and its meaning; secrets are not shown."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearpane import settings as configuration
from clearpane.cli import checks
from clearpane.settings import Settings, SettingsError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse gives its type no other name


def register(commands: "Commands") -> None:
    parser = commands.add_parser("config", help="check the settings and print them as TOML")
    parser.add_argument("--docs", action="store_true", help="print the table of docs/settings.md")
    parser.set_defaults(run=_print)


def _print(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.docs:
        print("\n".join(table()))
        return 0
    if problems := checks.problems(settings):
        raise SettingsError(problems)
    for name, field in configuration.fields().items():
        value = getattr(settings, name)
        shown = '"(set, not shown)"' if field.metadata.get("secret") and value is not None else as_toml(value)
        print(f"# {field.metadata['meaning']}")
        print(f"{name} = {shown}" if value is not None else f"# {name} =")
    return 0


def table() -> list[str]:
    """Every setting as a row of a Markdown table, in the order of the settings."""
    lines = ["| setting | variable | flag | default | meaning |", "|---|---|---|---|---|"]
    defaults = Settings()
    for name, field in configuration.fields().items():
        value = getattr(defaults, name)
        default = "" if value is None else f"`{_as_size(name, value)}`"
        flag = f"`--{name.replace('_', '-')}`" if field.metadata.get("flag") else ""
        meaning = field.metadata["meaning"].replace("|", "\\|")
        lines.append(f"| `{name}` | `CLEARPANE_{name.upper()}` | {flag} | {default} | {meaning} |")
    return lines


def _as_size(name: str, value: Any) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if "bytes" in name and isinstance(value, int) and value and value % size == 0:
            return f'"{value // size}{unit}"'
    return as_toml(value)


def as_toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{key}" = {as_toml(item)}' for key, item in value.items()) + " }" if value else "{}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    text = str(value) if isinstance(value, Path | str) else repr(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
