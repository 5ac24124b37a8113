"""The spool: a worker's append-only segments on local disk, between a live call and everything that may be slow.

`<root>/<spool id>/` holds `lock` (held by the living writer) and segments `<first frame's number>.seg`; the shipper
keeps its own files beside them. One spool is one life of one worker process.
"""

from proxy.spool.folder import Claim, claim, drop_segment, drop_spool, is_held, segments, spools
from proxy.spool.frames import Frame, FrameType, SpoolDamaged, split_completed
from proxy.spool.reader import SpoolReader, written_last
from proxy.spool.space import REASONS, SpoolCounters
from proxy.spool.thread import SpoolThread
from proxy.spool.walk import Damage, walk

ADMITTED = FrameType.ADMITTED
STARTED = FrameType.STARTED
COMPLETED = FrameType.COMPLETED
GAP = FrameType.GAP

__all__ = [
    "ADMITTED",
    "COMPLETED",
    "GAP",
    "REASONS",
    "STARTED",
    "Claim",
    "Damage",
    "Frame",
    "FrameType",
    "SpoolCounters",
    "SpoolDamaged",
    "SpoolReader",
    "SpoolThread",
    "claim",
    "drop_segment",
    "drop_spool",
    "is_held",
    "segments",
    "split_completed",
    "spools",
    "walk",
    "written_last",
]
