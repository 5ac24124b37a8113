"""What a parent hands to a child process: settings, sockets, switches. One JSON line on standard input."""

import dataclasses
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from clearpane.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """`sockets` maps a role to an inherited file descriptor; `switches` are facts that are no settings."""

    settings: Settings
    sockets: dict[str, int] = field(default_factory=dict)
    switches: dict[str, Any] = field(default_factory=dict)

    def to_line(self) -> bytes:
        """The settings as they are, secrets included: only ever written into the child's own pipe."""
        values = {f.name: getattr(self.settings, f.name) for f in dataclasses.fields(self.settings)}
        return orjson.dumps({"settings": values, "sockets": self.sockets, "switches": self.switches}, default=str) + b"\n"

    @staticmethod
    def from_line(line: bytes) -> "Handover":
        found = orjson.loads(line)
        values = found["settings"]
        for f in dataclasses.fields(Settings):
            if f.type in (Path, Path | None) and values[f.name] is not None:
                values[f.name] = Path(values[f.name])
            elif isinstance(values[f.name], list):
                values[f.name] = tuple(values[f.name])
        return Handover(settings=Settings(**values), sockets=found["sockets"], switches=found["switches"])

    def socket(self, role: str) -> socket.socket | None:
        """The inherited listening socket of this role, non-blocking; None if there is none."""
        if role not in self.sockets:
            return None
        found = socket.socket(fileno=self.sockets[role])
        found.setblocking(False)
        return found
