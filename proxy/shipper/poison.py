"""Poison: records that no path took as they are, whole, for a person to look at. `<data>/poison/<spool>-<sequence>.json`."""

import logging
from pathlib import Path

from proxy.shipper import metrics
from proxy.shipper.envelopes import Message, shrunk

log = logging.getLogger(__name__)

# Above it the records themselves are not kept any more; that they were sent without bodies still is counted.
_BYTES_MAX = 1 << 30


class Poison:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def shrink(self, message: Message, source: str, sequence: int, reason: str) -> Message:
        """Keeps the whole record here and returns the one to send."""
        path = self._folder / f"{source}-{sequence}.json"
        if not path.exists():
            metrics.SHRUNK.labels(reason).inc()
            kept = self._keep(path, message.data)
            log.error(
                "record %s is %s: it goes without its bodies, which %s; compare the limits of intake and topic with the record's %d bytes",
                message.request_id, reason, f"are in {path}" if kept else "are lost, as the poison folder takes no more", len(message.data),
            )  # fmt: skip
        return shrunk(message)

    def _keep(self, path: Path, data: bytes) -> bool:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if sum(entry.stat().st_size for entry in self._folder.iterdir()) + len(data) > _BYTES_MAX:
                return False
            staging = path.with_suffix(".new")
            staging.write_bytes(data)
            staging.rename(path)
        except OSError:
            return False
        return True
