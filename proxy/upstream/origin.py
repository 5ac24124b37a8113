"""Where an upstream listens."""

from typing import NamedTuple


class Origin(NamedTuple):
    scheme: str
    host: str
    port: int
