import orjson
import pytest

from proxy import plan as plans
from proxy.plan import Message, Plans
from proxy.routes import Routes

HEADERS = [
    (b"Host", b"proxy:8080"),
    (b"Authorization", b"Bearer sk-a-key-that-is-long-enough"),
    (b"X-Odd", b"\xff"),
    (b"Helicone-User-Id", b"u"),
    (b"Clearpane-Unknown", b"1"),
    (b"Content-Length", b"3"),
]


def made(**changes: object) -> Plans:
    return Plans(Routes("https://api.openai.com", {}), lambda key: "f" * 12, **changes)  # type: ignore[arg-type]


def message(**changes: object) -> Message:
    base = Message("POST", "/v1/chat/completions?key=secret-of-the-query", (1, 1), HEADERS, chunked=False, close=False, upgrade=False)
    return base._replace(**changes)


def test_a_plan_is_all_that_follows_from_a_head() -> None:
    plan = made().make(message())
    assert plan.refusal is None
    assert plan.head == (
        b"POST /v1/chat/completions?key=secret-of-the-query HTTP/1.1\r\nHost: api.openai.com\r\n"
        b"Authorization: Bearer sk-a-key-that-is-long-enough\r\nX-Odd: \xff\r\n"
    )
    assert (plan.length, plan.ignored, plan.anthropic) == (3, b"Clearpane-Unknown", False)
    assert b"sk-a-key-that-is-long-enough" in plan.secrets
    facts = orjson.loads(plan.facts)
    assert (facts["caller"]["user_id"], facts["caller"]["key_fingerprint"]) == ("u", "f" * 12)
    assert b"sk-a-key" not in plan.facts
    assert b"secret-of-the-query" not in plan.facts


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"target": "/nobody/v1"}, 404),
        ({"target": "http://elsewhere/v1"}, 404),
        ({"version": (2, 0)}, 400),
        ({"headers": []}, 400),
        ({"headers": [(b"Host", b"a b")]}, 400),
        ({"headers": [*HEADERS, (b"Transfer-Encoding", b"gzip, chunked")]}, 400),
        ({"upgrade": True}, 501),
        ({"method": "GET", "upgrade": True, "headers": [(b"Host", b"p"), (b"Upgrade", b"h2c")]}, 501),
        ({"method": "GET", "upgrade": True, "headers": [(b"Host", b"p"), (b"Upgrade", b"websocket, h2c")]}, 501),
        ({"method": "GET", "upgrade": True, "headers": [(b"Host", b"p"), (b"Upgrade", b"websocket"), (b"upgrade", b"h2c")]}, 501),
        ({"method": "POST", "upgrade": True, "headers": [(b"Host", b"p"), (b"Upgrade", b"websocket")]}, 501),
        ({"method": "GET", "upgrade": True, "headers": [(b"Host", b"p"), (b"Upgrade", b"websocket"), (b"Content-Length", b"1")]}, 501),
        ({"method": "GET", "upgrade": True, "headers": [(b"Host", b"p"), (b"Upgrade", b"websocket")], "version": (1, 0)}, 501),
    ],
)
def test_what_speaks_against_a_request_stands_in_its_plan(changes: dict[str, object], status: int) -> None:
    refusal = made().make(message(**changes)).refusal
    assert refusal is not None
    assert refusal.status == status


def test_of_an_upgrade_to_websocket_two_lines_are_sent_on_and_no_other_of_the_hop() -> None:
    headers = [
        (b"Host", b"p"), (b"Connection", b"keep-alive, Upgrade"), (b"Keep-Alive", b"5"), (b"Upgrade", b"WebSocket"),
        (b"Sec-WebSocket-Key", b"bm9uY2U="), (b"Sec-WebSocket-Extensions", b"permessage-deflate"),
        (b"Sec-WebSocket-Protocol", b"realtime, openai-insecure-api-key.sk-of-a-browser-012345"),
    ]  # fmt: skip
    plan = made().make(message(method="GET", target="/v1/realtime?model=m", headers=headers, upgrade=True))
    assert (plan.refusal, plan.websocket) == (None, True)
    assert plan.head == (
        b"GET /v1/realtime?model=m HTTP/1.1\r\nHost: api.openai.com\r\n"
        b"Sec-WebSocket-Key: bm9uY2U=\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
        b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-of-a-browser-012345\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    )
    assert b"sk-of-a-browser-012345" in plan.secrets
    assert b"sk-of-a-browser" not in plan.facts
    assert orjson.loads(plan.facts)["target"]["operation"] == "realtime"
    assert not made().make(message()).websocket


def test_plans_are_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "PLANS_KEPT", 3)
    kept = made()
    plan = kept.make(message())
    for number in range(4):
        kept.keep(b"%d" % number, plan)
    assert kept.known(b"3") is plan
    assert kept.known(b"0") is None
    kept.keep(b"x" * (plans.PLAN_BYTES_MAX + 1), plan)
    assert kept.known(b"x" * (plans.PLAN_BYTES_MAX + 1)) is None


def test_a_trace_is_made_for_each_call_only_when_a_setting_asks_for_it() -> None:
    adding = made(add_traceparent=True, add_request_id=True)
    plan = adding.make(message())
    one, two = adding.trace(plan, "0198c0de-1111-7111-8111-111111111111"), adding.trace(plan, "0198c0de-1111-7111-8111-111111111111")
    assert adding.adds_trace
    assert one.span_id != two.span_id
    assert [name for name, _ in one.added] == [b"traceparent", b"x-request-id"]
    assert not made().adds_trace
