"""Forms of a setting's value: each takes what a TOML file, a variable or a flag holds and returns it typed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_SIZE = re.compile(r"(\d+)\s*([A-Za-z]*)")
_UPSTREAM_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_RESERVED_NAMES = {"v1", "healthz", "readyz"}


class Malformed(ValueError):
    """What is wrong with a value, and what it should look like."""


def text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Malformed("needs a text that is not empty")
    return value.strip()


def secret(value: Any) -> str:
    if len(found := text(value)) < 16:
        raise Malformed("needs at least 16 characters; `openssl rand -hex 32` makes one")
    return found


def flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in {"true", "1", "yes", "on"}:
        return True
    if isinstance(value, str) and value.lower() in {"false", "0", "no", "off", ""}:
        return False
    raise Malformed("needs true or false")


def integer(least: int, most: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        try:
            found = value if isinstance(value, int) and not isinstance(value, bool) else int(text(value))
        except ValueError:
            raise Malformed(f"needs a whole number, {least} to {most}") from None
        if not least <= found <= most:
            raise Malformed(f"needs a whole number, {least} to {most}")
        return found

    return parse


def number(least: float, most: float) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        try:
            found = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float(text(value))
        except ValueError:
            raise Malformed(f"needs a number, {least:g} to {most:g}") from None
        if not least <= found <= most:
            raise Malformed(f"needs a number, {least:g} to {most:g}")
        return found

    return parse


def size(least: int) -> Callable[[Any], int]:
    """Bytes: a whole number, or one with a unit (`8MiB`)."""

    def parse(value: Any) -> int:
        found = value if isinstance(value, int) and not isinstance(value, bool) else None
        if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())) and match[2].lower() in _UNITS:
            found = int(match[1]) * _UNITS[match[2].lower()]
        if found is None or found < least:
            raise Malformed(f"needs a size of at least {least} bytes, as 8388608 or 8MiB")
        return found

    return parse


def choice(*allowed: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in allowed:
            raise Malformed(f"needs one of {', '.join(allowed)}")
        return str(value)

    return parse


def folder(value: Any) -> Path:
    return Path(text(str(value) if isinstance(value, Path) else value)).expanduser()


def host_port(value: Any) -> str:
    host, port = split_host_port(text(value))
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_host_port(address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port`. Raises Malformed."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise Malformed("needs HOST:PORT, as 127.0.0.1:8080")
    return host.removeprefix("[").removesuffix("]"), int(port)


def brokers(value: Any) -> str:
    names = value if isinstance(value, list) else text(value).split(",")
    return ",".join(host_port(name) for name in names)


def topic(value: Any) -> str:
    if not _TOPIC.fullmatch(found := text(value)):
        raise Malformed("needs a Kafka topic's name: letters, digits, dot, underscore, hyphen")
    return found


def upstream_url(value: Any) -> str:
    found = text(value)
    try:
        parts = urlsplit(found)
        _ = parts.port
    except ValueError:
        raise Malformed("needs a URL, as https://api.example.com") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise Malformed("needs http(s)://host[:port][/path], without query")
    if parts.username or parts.password:
        raise Malformed("must hold no credentials: the caller's own key is forwarded")
    return found.rstrip("/")


def upstreams(value: Any) -> dict[str, str]:
    """A table {NAME: URL}, `NAME=URL[,NAME=URL]`, or a list of `NAME=URL`."""
    if isinstance(value, dict):
        pairs = list(value.items())
    else:
        entries = value if isinstance(value, list) else text(value).split(",")
        pairs = [(name.strip(), url) for name, _, url in (entry.partition("=") for entry in entries)]
    for name, _ in pairs:
        if not _UPSTREAM_NAME.fullmatch(name) or name in _RESERVED_NAMES:
            raise Malformed(f"{name!r} cannot name an upstream: small letters, digits, . _ -, and none of v1, healthz, readyz")
    return {name: upstream_url(url) for name, url in pairs}


def upstream_names(value: Any) -> tuple[str, ...]:
    """A list of names, or `NAME[,NAME]`; without doubles."""
    names = value if isinstance(value, list | tuple) else [name.strip() for name in text(value).split(",")]
    for name in names:
        if not isinstance(name, str) or not _UPSTREAM_NAME.fullmatch(name):
            raise Malformed(f"{name!r} names no upstream: needs names as openai, default")
    return tuple(dict.fromkeys(names))


def lake(value: Any) -> str:
    found = text(str(value) if isinstance(value, Path) else value)
    if "://" in found and not found.startswith("s3://"):
        raise Malformed("needs a folder, or s3://bucket/prefix")
    if found.startswith("s3://") and not urlsplit(found).hostname:
        raise Malformed("needs a bucket: s3://bucket/prefix")
    return found.rstrip("/") if found.startswith("s3://") else str(Path(found).expanduser())


def intake_url(value: Any) -> str:
    """http(s)://host:port, or HOST:PORT for http."""
    found = text(value)
    if "://" not in found:
        found = f"http://{found}"
    parts = urlsplit(found)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in {"http", "https"} or not parts.hostname or (port is None and parts.scheme == "http"):
        raise Malformed("needs http://host:port or https://host")
    if parts.path not in {"", "/"} or parts.query:
        raise Malformed("needs no path: the intake has its own")
    return found.rstrip("/")
