"""Logs: one JSON object per line on standard error. Control bytes are escaped by the serializer."""

import logging
import sys
import time
from datetime import UTC, datetime

import orjson

# Libraries whose DEBUG or INFO lines hold payloads or repeat without end during an outage.
_QUIET = {"aiokafka": logging.ERROR, "aiohttp": logging.WARNING, "asyncio": logging.WARNING, "kafka": logging.ERROR}
# The same line of a library is written once in this time.
_REPEAT_S = 30.0


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "part": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            # The type and the place; never the text, which may quote a header or a body.
            line["exception"] = record.exc_info[0].__name__
            line["at"] = _innermost(record)
        return orjson.dumps(line, default=str).decode()


def _innermost(record: logging.LogRecord) -> str:
    trace = record.exc_info[2] if record.exc_info else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}" if trace else ""


class _Repeats(logging.Filter):
    """Lets one library's line through once in a while, whatever its arguments are."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, object], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.split(".")[0] not in _QUIET:
            return True
        now = time.monotonic()
        key = (record.name, record.msg)
        if now - self._last.get(key, -_REPEAT_S) < _REPEAT_S:
            return False
        if len(self._last) > 1000:
            self._last.clear()
        self._last[key] = now
        return True


def start(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    handler.addFilter(_Repeats())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, logging.getLogger().level))
