"""Bounds of the client's side; the names are those of the settings."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """One client or one call may take so much of a worker."""

    request_bytes_max: int
    head_bytes_max: int
    header_bytes_max: int
    headers_max: int
    connections_max: int
    head_timeout_s: float
    keepalive_timeout_s: float
    request_timeout_s: float
    request_bytes_per_s_min: int
    write_timeout_s: float
    websocket_idle_s: float
    drain_s: float
