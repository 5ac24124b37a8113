"""Delivery: which way a record goes that no way has been chosen for. Pure."""

from dataclasses import dataclass
from enum import Enum


class Choice(Enum):
    KAFKA = "kafka"
    HTTP = "http"
    WAIT = "wait"  # stays in the spool
    SHRINK = "shrink"  # too large for the only way there is: goes without its bodies


@dataclass(slots=True)
class Ways:
    """What there is, and how many records each takes at this moment."""

    kafka: bool
    kafka_slots: int
    kafka_deciding: bool  # it will show within seconds whether it takes records
    kafka_record_bytes_max: int
    intake: bool
    intake_slots: int

    def choose(self, size: int) -> Choice:
        """`size` is the envelope's, in bytes. Takes the slot."""
        if self.kafka and size > self.kafka_record_bytes_max and not self.intake:
            return Choice.SHRINK
        if self.kafka and size <= self.kafka_record_bytes_max:
            if self.kafka_slots > 0:
                self.kafka_slots -= 1
                return Choice.KAFKA
            if self.kafka_deciding:
                return Choice.WAIT
        if self.intake and self.intake_slots > 0:
            self.intake_slots -= 1
            return Choice.HTTP
        return Choice.WAIT
