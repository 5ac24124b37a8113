"""Where an upstream listens."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    scheme: str
    host: str
    port: int
