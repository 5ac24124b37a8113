"""What a worker tells its recorder to begin with: one JSON argument, since it holds no secret. Pure."""

from dataclasses import asdict, dataclass

import orjson


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """`ring`, `queue` and `lock` are inherited descriptors; without a `lock` the recorder takes the spool's itself."""

    root: str
    spool_id: str
    bytes_max: int
    segment_bytes: int
    queue_bytes_max: int
    log_level: str
    ring: int = -1
    ring_bytes: int = 0
    queue: int = -1  # of `queue_bytes_max`
    lock: int | None = None

    def to_argument(self) -> str:
        return orjson.dumps(asdict(self)).decode()

    @staticmethod
    def from_argument(text: str) -> "Start":
        return Start(**orjson.loads(text))
