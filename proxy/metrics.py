"""The workers' metrics. Labels come from closed sets: configured upstreams, status classes, ends, reasons."""

from prometheus_client import Counter, Gauge, Histogram

CALLS = Counter("clearpane_proxy_calls_total", "Calls that ended, by upstream, status class and end.", ["upstream", "status", "end"])
IN_FLIGHT = Gauge("clearpane_proxy_calls_in_flight", "Calls that are open now.", multiprocess_mode="livesum")
ADMITTED = Counter("clearpane_proxy_calls_admitted_total", "Calls that were given a sequence number.")
CONNECTIONS = Gauge("clearpane_proxy_client_connections", "Client connections that are open now.", multiprocess_mode="livesum")
REFUSED = Counter("clearpane_proxy_refused_total", "Requests that were answered by the proxy itself, by reason.", ["reason"])
UNREADABLE = Counter("clearpane_proxy_unreadable_requests_total", "Requests that were no HTTP: answered 400, no record.")
REQUEST_BYTES = Counter("clearpane_proxy_request_body_bytes_total", "Bytes of request bodies.")
RESPONSE_BYTES = Counter("clearpane_proxy_response_body_bytes_total", "Bytes of answers' bodies.")
INCLUDE_USAGE = Counter(
    "clearpane_proxy_include_usage_total",
    "Calls that were asked for a stream's usage, and streams that could not be, by outcome.",
    ["outcome"],
)
UPSTREAM_CONNECTS = Counter("clearpane_proxy_upstream_connects_total", "New connections to upstreams, by upstream.", ["upstream"])
ADDED = Histogram(
    "clearpane_proxy_added_seconds",
    "The proxy's own time before the upstream had the request's head, connect not included.",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5),
)
FIRST_BYTE = Histogram(
    "clearpane_proxy_first_byte_seconds",
    "Time from the request to the first byte of the answer's body.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
SPOOL_DROPPED_RECORDS = Counter(
    "clearpane_proxy_spool_dropped_records_total", "Records that the spool could not take, by reason.", ["reason"]
)
SPOOL_DROPPED_BODIES = Counter("clearpane_proxy_spool_dropped_bodies_total", "Bodies that the spool could not take, by reason.", ["reason"])
SPOOL_COMPLETED = Counter("clearpane_proxy_spool_completed_total", "Completed records that the spool took.")
SPOOL_BYTES = Gauge("clearpane_proxy_spool_bytes", "Bytes of the living workers' spools on disk.", multiprocess_mode="livesum")
