"""What the head of a request means: where it goes, what of it is sent on, what its record says. Pure.

Clients send the same head all day, but for the length of the body. So a plan holds all that follows from the
rest, and `Plans` keeps it by the very bytes it was made of: equal bytes mean the same.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from clearpane.contract import secrets
from clearpane.contract.envelope import Facts
from proxy.control import Controls, read_controls
from proxy.headers import Headers, Refused, first, request_head
from proxy.routes import NoRoute, Route, Routes
from proxy.trace import Trace, read_trace

# RFC 3986 authority without user information; a Host that is none of this is refused.
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
# The only hop-by-hop lines that are ever sent on, and only for the one protocol that can be relayed after them.
_UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
_USER_AGENT_CHARS_MAX = 512
# Long lists of ignored headers are cut: an answer's head should stay small.
_IGNORED_BYTES_MAX = 1024
# What may be streamed in OpenAI's form with `stream_options`.
_WITH_STREAM_OPTIONS = {"chat", "completions"}
# Heads that are kept, and how long one may be to be kept.
PLANS_KEPT, PLAN_BYTES_MAX = 2048, 8 << 10


class BadRequest(Exception):
    """A request that is refused before any upstream sees it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class Message(NamedTuple):
    """A request's head as the parser of the server read it."""

    method: str
    target: str  # bytes that are no UTF-8 as surrogates
    version: tuple[int, int]
    headers: Headers
    chunked: bool
    close: bool
    upgrade: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """`head` is for the upstream and lacks the framing and the empty line. `refusal`: what speaks against this request."""

    method: str
    headers: Headers
    route: Route | None
    refusal: BadRequest | None
    head: bytes
    chunked: bool
    close: bool
    http10: bool
    length: int | None  # as stated
    facts: bytes  # JSON, for the record
    secrets: tuple[bytes, ...]
    ignored: bytes
    anthropic: bool  # which SDK's errors this caller reads
    websocket: bool  # the caller asks for one, and so does `head`
    include_usage: bool  # a streamed answer is asked for its usage, for the record alone


class Plans:
    """Makes plans, and keeps those of whole heads."""

    def __init__(
        self,
        routes: Routes,
        fingerprint: Callable[[bytes], str],
        *,
        add_traceparent: bool = False,
        add_request_id: bool = False,
        include_usage: Collection[str] = (),
    ) -> None:
        """`include_usage` names upstreams."""
        self.adds_trace = add_traceparent or add_request_id
        self._routes, self._fingerprint = routes, fingerprint
        self._add_traceparent, self._add_request_id = add_traceparent, add_request_id
        self._include_usage = frozenset(include_usage)
        self._kept: dict[bytes, Plan] = {}
        self.known = self._kept.get

    def keep(self, key: bytes, plan: Plan) -> None:
        """`key`: the head's bytes without the line of its Content-Length."""
        if len(key) <= PLAN_BYTES_MAX:
            if len(self._kept) >= PLANS_KEPT:  # heads that differ from call to call would else push out those that come again
                self._kept.clear()
            self._kept[key] = plan

    def make(self, message: Message) -> Plan:
        headers = message.headers
        controls = read_controls(headers)
        route, refusal = self._find(message)
        head = b""
        if refusal is None and route is not None:
            try:
                head = request_head(message.method, _bytes_of(route.target), route.upstream.host, headers, b"")[:-2]
            except Refused as error:
                refusal = BadRequest(400, "request_header", str(error))
        websocket = refusal is None and message.upgrade
        length = first(headers, b"content-length")
        query = _bytes_of(message.target.partition("?")[2])
        return Plan(
            method=message.method,
            headers=headers,
            route=route,
            refusal=refusal,
            head=head + _UPGRADE if websocket else head,
            chunked=message.chunked,
            close=message.close,
            http10=message.version < (1, 1),
            length=None if length is None else int(length),
            facts=orjson.dumps(self._facts(message, controls, route, query)),
            secrets=secrets.credentials_of(headers, query),
            ignored=", ".join(controls.ignored).encode()[:_IGNORED_BYTES_MAX],
            anthropic=route is not None and (route.upstream.provider == "anthropic" or route.operation in {"messages", "count_tokens"}),
            websocket=websocket,
            include_usage=refusal is None and route is not None and self._includes_usage(message, controls, route),
        )

    def trace(self, plan: Plan, request_id: str) -> Trace:
        """Of one call, where the proxy adds to what the caller said."""
        return read_trace(plan.headers, request_id, add_traceparent=self._add_traceparent, add_request_id=self._add_request_id)

    def _includes_usage(self, message: Message, controls: Controls, route: Route) -> bool:
        """Not for HTTP/1.0: its clients could not be told where a body ends that became shorter."""
        asked = controls.include_usage or route.upstream.name in self._include_usage
        return asked and route.operation in _WITH_STREAM_OPTIONS and message.method == "POST" and message.version == (1, 1)

    def _find(self, message: Message) -> tuple[Route | None, BadRequest | None]:
        try:
            route = self._routes.find(message.target)
        except NoRoute as error:
            return None, BadRequest(404, "no_upstream", str(error))
        return route, _objection(message)

    def _facts(self, message: Message, controls: Controls, route: Route | None, query: bytes) -> Facts:
        headers = message.headers
        key = secrets.credential_of(headers, query)
        return {
            "client_request_id": controls.text("request-id"),
            "method": message.method,
            "path": secrets.safe_target(_shown(message.target)),
            "headers": secrets.safe_headers(headers, secrets.ALLOWED_REQUEST_HEADERS),
            "trace": read_trace(headers, "", add_traceparent=False, add_request_id=False).facts(),
            "caller": _caller(controls, self._fingerprint(key) if key else None, headers),
            "target": _target(route),
            "omitted": controls.omitted,
        }


def _objection(message: Message) -> BadRequest | None:
    """What aiohttp's parser lets through and RFC 9112 does not."""
    headers = message.headers
    if message.version not in {(1, 0), (1, 1)}:
        return BadRequest(400, "request_malformed", "the proxy speaks HTTP/1.1 and HTTP/1.0")
    hosts = [value for name, value in headers if name.lower() == b"host"]
    if any(_HOST.fullmatch(host.strip()) is None for host in hosts) or (not hosts and message.version == (1, 1)):
        return BadRequest(400, "request_malformed", "the Host header is missing or malformed")
    codings = [value.strip().lower() for name, value in headers if name.lower() == b"transfer-encoding"]
    if codings and (codings != [b"chunked"] or message.version == (1, 0)):
        return BadRequest(400, "request_malformed", "the only transfer-encoding that can be forwarded is `chunked`, with HTTP/1.1")
    if message.upgrade and not _is_websocket(message):
        return BadRequest(
            501, "upgrade_unsupported", "the only upgrade that can be forwarded is a GET to `websocket` alone, without a body"
        )
    return None


def _is_websocket(message: Message) -> bool:
    """RFC 6455 section 4.1. A body would be the first bytes of the WebSocket to one reader, and not to another."""
    named = [value.strip().lower() for name, value in message.headers if name.lower() == b"upgrade"]
    bare = not message.chunked and (first(message.headers, b"content-length") or b"0").strip() == b"0"
    return message.method == "GET" and message.version == (1, 1) and named == [b"websocket"] and bare


def _caller(controls: Controls, key_fingerprint: str | None, headers: Headers) -> Facts:
    agent = first(headers, b"user-agent")
    return {
        "key_fingerprint": key_fingerprint,
        "user_id": controls.text("user-id"),
        "session_id": controls.text("session-id"),
        "session_path": controls.text("session-path"),
        "session_name": controls.text("session-name"),
        "prompt_id": controls.text("prompt-id"),
        "properties": controls.properties,
        "tags": [],
        "user_agent": agent.decode("utf-8", "replace")[:_USER_AGENT_CHARS_MAX] if agent else None,
    }


def _target(route: Route | None) -> Facts:
    if route is None:
        return {"provider": None, "upstream": None, "operation": None, "url": None}
    upstream = route.upstream
    url = f"{upstream.origin.scheme}://{upstream.host.decode('ascii')}{_shown(route.target)}"
    return {"provider": upstream.provider, "upstream": upstream.name, "operation": route.operation, "url": secrets.safe_url(url)}


def _bytes_of(target: str) -> bytes:
    """The target as it came: aiohttp decodes it with surrogates for what is no UTF-8."""
    return target.encode("utf-8", "surrogateescape")


def _shown(target: str) -> str:
    """Bytes that are no UTF-8 are shown as replacement characters: the record is JSON."""
    return _bytes_of(target).decode("utf-8", "replace")
