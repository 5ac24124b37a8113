"""What can go wrong on the way to an upstream and back. The status that a client sees follows from the kind."""

from typing import ClassVar

from clearpane.contract.envelope import End, ErrorSource


class UpstreamFault(Exception):
    """`reason` is a closed set: it goes into answers, records and metric labels."""

    reason: ClassVar[str] = "upstream_error"
    status: ClassVar[int] = 502
    end: ClassVar[End] = "upstream_error"
    source: ClassVar[ErrorSource] = "upstream"


class ConnectFailed(UpstreamFault):
    """No connection: name not found, refused, unreachable, TLS not agreed. Nothing was sent."""

    reason = "upstream_connect"


class OutOfFiles(UpstreamFault):
    """This process has no file descriptor left for a connection. Nothing was sent, and the upstream was not asked."""

    reason = "too_many_files"
    status = 503
    end = "rejected"
    source = "proxy"


class ConnectTimeout(UpstreamFault):
    """No connection within the deadline. Nothing was sent."""

    reason = "upstream_connect_timeout"
    status = 504
    end = "timeout"


class ReadTimeout(UpstreamFault):
    """The upstream was silent for longer than the deadline."""

    reason = "upstream_read_timeout"
    status = 504
    end = "timeout"


class Silent(ReadTimeout):
    """Nothing came and went on a WebSocket for longer than the deadline."""

    reason = "websocket_idle"


class Broken(UpstreamFault):
    """The connection ended before the answer did."""

    reason = "upstream_broken"


class Malformed(UpstreamFault):
    """The answer is not HTTP/1.1 as RFC 9112 has it: where it ends cannot be trusted."""

    reason = "upstream_malformed"


class Defect(UpstreamFault):
    """The proxy itself failed at what came, and ended the connection."""

    reason = "internal"
    status = 500
    end = "rejected"
    source = "proxy"
