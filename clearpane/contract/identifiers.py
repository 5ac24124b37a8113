"""Identifiers: of a call, of a spool, of a log; and which partition a call belongs to."""

import binascii
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import uuid_utils

# What may stand in a log's name: it becomes part of object keys, so it is ours alone and plain ASCII.
_TOPIC_UNSAFE = re.compile(r"[^A-Za-z0-9_.]")
_SPOOL_ID = re.compile(r"[0-9a-f]{32}")


def new_request_id() -> str:
    """A UUIDv7: unique, and ordered by the millisecond of its birth."""
    return str(uuid_utils.uuid7())


def new_spool_id() -> str:
    """32 hexadecimal digits, ordered by time; the folder of one worker's life."""
    return uuid_utils.uuid7().hex


def is_spool_id(text: str) -> bool:
    return _SPOOL_ID.fullmatch(text) is not None


def born_at(request_id: str) -> datetime:
    """When a UUIDv7 was made (UTC, ms). Raises ValueError for anything else."""
    value = uuid.UUID(request_id)
    if value.version != 7:
        raise ValueError(f"not a UUIDv7: {request_id!r}")
    return datetime.fromtimestamp((value.int >> 80) / 1000, tz=UTC)


def spool_born_at(spool_id: str) -> datetime:
    """When a spool was begun (UTC, ms). Raises ValueError for anything but an id that new_spool_id gave."""
    if not is_spool_id(spool_id):
        raise ValueError("a spool id is 32 hexadecimal digits")
    return born_at(spool_id)


def partition_of(request_id: str, partitions: int) -> int:
    """The Kafka partition that every copy of this call's messages goes to."""
    return binascii.crc32(request_id.encode()) % partitions


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One ordered sequence of messages: a Kafka partition, or one spool's HTTP sequence."""

    name: str

    @staticmethod
    def of_partition(topic: str, partition: int, incarnation: int = 0) -> "Log":
        """`incarnation` is raised by the operator when a topic was deleted and made again."""
        plain = _TOPIC_UNSAFE.sub(lambda m: f"%{ord(m[0]):02x}", topic)
        return Log(name=f"k-{plain}-{incarnation}-{partition}")

    @staticmethod
    def of_spool(spool_id: str) -> "Log":
        if not is_spool_id(spool_id):
            raise ValueError("a spool id is 32 hexadecimal digits")
        return Log(name=f"h-{spool_id}")
