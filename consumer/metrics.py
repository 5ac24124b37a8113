"""What the consumer counts. `read = stored + started + copies + poison stored` holds once nothing is buffered."""

from prometheus_client import Counter, Gauge, Histogram

messages_read = Counter("clearpane_consumer_messages_read", "Messages taken in, each offset once per reading.", ["source"])
records_stored = Counter("clearpane_consumer_records_stored", "Records in objects that this process created.")
started_skipped = Counter("clearpane_consumer_started_skipped", "`started` messages: seen, not stored.")
copies_dropped = Counter("clearpane_consumer_copies_dropped", "Second copies of a call whose record is in the lake.")
poison_stored = Counter("clearpane_consumer_poison_stored", "Messages that are no envelope, stored raw.")
derive_failed = Counter("clearpane_consumer_derive_failed", "Records whose derivation broke: stored with parse_error.")

objects_written = Counter("clearpane_consumer_objects_written", "Objects created in calls/.")
objects_adopted = Counter("clearpane_consumer_objects_adopted", "Objects that another writer had created first.")
answers_lost = Counter("clearpane_consumer_answers_lost", "Own objects found after a PUT whose answer was lost.")
object_bytes = Counter("clearpane_consumer_object_bytes", "Compressed bytes of objects created.")
write_seconds = Histogram("clearpane_consumer_write_seconds", "From the cut of an object to its head being written.")

store_retries = Counter("clearpane_consumer_store_retries", "Requests to the store that were made again.", ["kind"])
store_errors = Counter("clearpane_consumer_store_errors", "Errors of the store.", ["kind"])

posts = Counter("clearpane_consumer_posts", "POSTs to the intake by status.", ["status"])
partitions_stopped = Gauge("clearpane_consumer_partitions_stopped", "Logs that need a person.", multiprocess_mode="livesum")
partitions_owned = Gauge("clearpane_consumer_partitions_owned", "Kafka partitions assigned.", multiprocess_mode="livesum")
lag_messages = Gauge("clearpane_consumer_lag_messages", "Messages in Kafka that are not in the lake.", multiprocess_mode="livesum")
oldest_buffered_seconds = Gauge(
    "clearpane_consumer_oldest_buffered_seconds", "Age of the oldest read, unstored record.", multiprocess_mode="livemax"
)
kafka_restarts = Counter("clearpane_consumer_kafka_restarts", "Kafka sessions that ended in an error and were begun again.")
commits_refused = Counter("clearpane_consumer_commits_refused", "Commits refused because the partition has another owner.")
