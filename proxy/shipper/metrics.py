"""The shipper's metrics. `completed = kafka + http + spooled + dropped` holds for all of its lives together."""

from prometheus_client import Counter, Gauge

ADMITTED = Counter("clearpane_shipper_admitted_total", "Admission marks read from the spools.")
COMPLETED = Counter(
    "clearpane_shipper_completed_total", "Records read from the spools, interrupted ones and those the spool dropped among them."
)
INTERRUPTED = Counter("clearpane_shipper_interrupted_total", "Records made for calls whose worker died.")
SENT = Counter("clearpane_shipper_sent_total", "Records acknowledged, by path.", ["path"])  # kafka, http
SPOOLED = Gauge("clearpane_shipper_spooled_records", "Records read and not yet acknowledged.", multiprocess_mode="livesum")
SPOOL_BYTES = Gauge("clearpane_shipper_spool_bytes", "Bytes of all spools on disk.", multiprocess_mode="livemax")
SPOOLS = Gauge("clearpane_shipper_spools", "Spools on disk.", multiprocess_mode="livemax")
# The spool's reasons, and `unreadable`: a frame that is no record.
DROPPED = Counter("clearpane_shipper_dropped_total", "Records that are lost, by reason.", ["reason"])
# too_large: for Kafka, and there is no intake; refused: by the intake
SHRUNK = Counter(
    "clearpane_shipper_shrunk_total", "Records sent without their bodies, which are in the poison folder, by reason.", ["reason"]
)
PLACEHOLDERS = Counter("clearpane_shipper_placeholders_total", "Numbers of HTTP sequences whose record the disk has lost.")
STARTED = Counter(
    "clearpane_shipper_started_total", "`started` messages, by what became of them.", ["outcome"]
)  # sent, superseded, dropped
REDACTIONS = Counter("clearpane_shipper_redactions_total", "Secrets replaced in records, by their form.")
CORRUPT = Counter("clearpane_shipper_corrupt_bytes_total", "Bytes of the spools that were damaged and skipped.")
JOURNAL_DAMAGED = Counter("clearpane_shipper_journal_damaged_bytes_total", "Bytes of journals that were torn or damaged and cut.")
JOURNAL_BYTES = Gauge("clearpane_shipper_journal_bytes", "Bytes of all journals.", multiprocess_mode="livesum")
DISK_ERRORS = Counter("clearpane_shipper_disk_errors_total", "Reads or writes of spool and journal that the disk refused.")
OLDEST_AGE = Gauge(
    "clearpane_shipper_oldest_unsent_age_seconds", "Age of the oldest record not yet acknowledged.", multiprocess_mode="livemax"
)
POSTS = Counter(
    "clearpane_shipper_posts_total", "POSTs to the intake, by outcome.", ["outcome"]
)  # stored, behind, refused, unavailable's reasons
KAFKA_IN_DOUBT = Counter(
    "clearpane_shipper_kafka_in_doubt_total", "Attempts at Kafka whose fate is not known; the record is sent there again."
)
KAFKA_PRODUCERS = Counter(
    "clearpane_shipper_kafka_producers_total", "Producers that were built, by outcome.", ["outcome"]
)  # started, failed
KAFKA_UP = Gauge("clearpane_shipper_kafka_up", "1 while Kafka's circuit is closed.", multiprocess_mode="livemax")
