import re

import pytest

from proxy.trace import read_trace

REQUEST_ID = "01a1fd9d-aff6-7713-8a94-5fb3ded5a08d"
GIVEN = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_callers_trace_is_read_and_nothing_is_added() -> None:
    trace = read_trace([(b"Traceparent", GIVEN), (b"X-Request-ID", b"mine")], REQUEST_ID, add_traceparent=True, add_request_id=True)
    assert trace.facts() == {
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": None,
        "parent_span_id": "b7ad6b7169203331",
        "x_request_id": "mine",
    }
    assert trace.added == ()


def test_nothing_is_added_unless_a_setting_says_so() -> None:
    trace = read_trace([], REQUEST_ID, add_traceparent=False, add_request_id=False)
    assert trace.added == ()
    assert set(trace.facts().values()) == {None}


def test_what_is_added_stands_on_the_record() -> None:
    trace = read_trace([], REQUEST_ID, add_traceparent=True, add_request_id=True)
    added = dict(trace.added)
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-01", added[b"traceparent"])
    assert trace.trace_id == REQUEST_ID.replace("-", "")
    assert trace.span_id is not None
    assert trace.span_id in added[b"traceparent"].decode()
    assert added[b"x-request-id"].decode() == trace.x_request_id == REQUEST_ID


@pytest.mark.parametrize("given", [b"", b"garbage", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01", GIVEN.upper()])
def test_a_malformed_traceparent_is_no_trace_and_is_not_replaced(given: bytes) -> None:
    trace = read_trace([(b"traceparent", given)], REQUEST_ID, add_traceparent=True, add_request_id=False)
    assert trace.trace_id is None
    assert trace.added == ()
