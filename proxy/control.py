"""Control headers of a request -> what the caller said about the call. Pure."""

from dataclasses import dataclass, field
from functools import lru_cache

from clearpane.contract.controls import CONTROLS, PREFIXES, PROPERTY
from proxy.headers import Headers

# Bounds of what a caller may attach to a record; what is longer is cut, what is more is left out and named.
VALUE_CHARS_MAX = 4096
PROPERTIES_MAX = 64

_BY_RANK = tuple(reversed(PREFIXES))
_FORMS = {control.name: control.form for control in CONTROLS}


@dataclass(slots=True)
class Controls:
    """What the control headers say. `ignored` names those that were not understood, as the caller spelt them."""

    texts: dict[str, str] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    properties: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    def text(self, name: str) -> str | None:
        return self.texts.get(name)

    @property
    def include_usage(self) -> bool:
        return "include-usage" in self.flags

    @property
    def omitted(self) -> list[str]:
        return [side for side in ("request", "response") if f"omit-{side}" in self.flags]


def read_controls(headers: Headers) -> Controls:
    """A `Clearpane-` header wins over the `Helicone-` header of the same meaning."""
    found = [(rank, raw_name, raw_value) for raw_name, raw_value in headers if (rank := _rank(raw_name)) is not None]
    controls = Controls()
    for rank, raw_name, raw_value in sorted(found, key=lambda each: each[0]):
        name = raw_name.decode("ascii")
        _take(controls, name, name[len(_BY_RANK[rank]) :], raw_value)
    return controls


@lru_cache(maxsize=4096)
def _rank(raw_name: bytes) -> int | None:
    """Which family a control header is of, the one that wins last; None for any other header."""
    name = raw_name.lower().decode("ascii")
    return next((rank for rank, prefix in enumerate(_BY_RANK) if name.startswith(prefix)), None)


def _take(controls: Controls, full_name: str, name: str, raw_value: bytes) -> None:
    lowered = name.lower()
    value = raw_value.decode("utf-8", "replace")[:VALUE_CHARS_MAX]
    if lowered.startswith(PROPERTY) and len(lowered) > len(PROPERTY):
        # In small letters: header names have no case, and half of all clients and proxies change it.
        _take_property(controls, full_name, lowered[len(PROPERTY) :], value)
    elif lowered not in _FORMS:
        controls.ignored.append(full_name)
    elif _FORMS[lowered] == "flag":
        if value.strip().lower() == "true":
            controls.flags.add(lowered)
    elif value:
        controls.texts[lowered] = value


def _take_property(controls: Controls, full_name: str, name: str, value: str) -> None:
    if name not in controls.properties and len(controls.properties) >= PROPERTIES_MAX:
        controls.ignored.append(full_name)
    else:
        controls.properties[name] = value
