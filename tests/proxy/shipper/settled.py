"""Journals of spools whose records were delivered, or given up."""

from pathlib import Path

from proxy.shipper import journal
from proxy.shipper.ranges import Ranges
from proxy.shipper.tracker import Tracker


def keep(folder: Path, tracker: Tracker) -> None:
    kept = journal.Journal(folder)
    kept.load()
    kept.rewrite(tracker.snapshot())
    kept.close()


def settle(folder: Path, last: int, http_end: int = 0, lost: Ranges | None = None) -> None:
    """A journal that says that all was delivered, or given up."""
    tracker = Tracker()
    tracker.done, tracker.http_next, tracker.http_end = Ranges([(0, last)]), http_end, http_end
    tracker.lost_for = {"unreadable": lost} if lost else {}
    keep(folder, tracker)
