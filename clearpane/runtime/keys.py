"""Secrets that a data folder makes for itself: the key of the embedded intake, the pepper of fingerprints."""

import os
import secrets
from pathlib import Path


def kept_secret(data: Path, name: str) -> str:
    """The secret in `<data>/<name>`, made on first use; readable by the owner only."""
    data.mkdir(parents=True, exist_ok=True)
    path = data / name
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii").strip()
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32) + "\n")
    return path.read_text(encoding="ascii").strip()
