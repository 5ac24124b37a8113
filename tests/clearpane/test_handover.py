"""Settings that reach a child process are those of its parent, each of its own type."""

from dataclasses import fields
from pathlib import Path

from clearpane.runtime.handover import Handover
from clearpane.settings import Settings


def test_every_path_is_a_path_again() -> None:
    paths = {f.name: Path(f"/a/{f.name}") for f in fields(Settings) if "Path" in str(f.type)}
    assert {"data", "kafka_ca_file", "price_overlay"} <= set(paths)
    for settings in (Settings(), Settings(**paths)):  # type: ignore[arg-type]
        found = Handover.from_line(Handover(settings=settings, switches={"watch": True}).to_line())
        assert found == Handover(settings=settings, switches={"watch": True})
