import pytest

from proxy.headers import Refused, expects_continue, first, request_head, response_fields


def test_order_spelling_and_duplicates_are_kept() -> None:
    headers = [(b"X-MiXed", b"1"), (b"x-mixed", b"2"), (b"Accept", b"*/*"), (b"X-MiXed", b"3")]
    head = request_head("POST", b"/v1/x?a=%7e", b"api.example", headers, b"Content-Length: 2\r\n")
    assert head == (
        b"POST /v1/x?a=%7e HTTP/1.1\r\nHost: api.example\r\nX-MiXed: 1\r\nx-mixed: 2\r\n"
        b"Accept: */*\r\nX-MiXed: 3\r\nContent-Length: 2\r\n\r\n"
    )


def test_hop_by_hop_and_named_lines_stay_behind() -> None:
    headers = [
        (b"Connection", b"keep-alive, X-Hop"),
        (b"X-Hop", b"1"),
        (b"Keep-Alive", b"5"),
        (b"TE", b"trailers"),
        (b"Proxy-Authorization", b"secret"),
        (b"Expect", b"100-continue"),
        (b"X-Stays", b"1"),
    ]
    assert request_head("GET", b"/", b"h", headers, b"") == b"GET / HTTP/1.1\r\nHost: h\r\nX-Stays: 1\r\n\r\n"


@pytest.mark.parametrize(
    ("values", "answered", "arrive"),
    [
        ([b"100-continue"], True, []),
        ([b" \t100-Continue "], True, []),
        ([b"100-continue", b"100-CONTINUE"], True, []),
        ([b"x, 100-continue"], True, [b"x, 100-continue"]),
        ([b"x", b"100-continue"], True, [b"x"]),
        ([b"100-continue;q=1"], False, [b"100-continue;q=1"]),
        ([b"x"], False, [b"x"]),
        ([b""], False, [b""]),
        ([], False, []),
    ],
)
def test_an_expectation_stays_behind_where_it_is_ours_to_answer(values: list[bytes], answered: bool, arrive: list[bytes]) -> None:
    headers = [(b"eXpect", value) for value in values]
    assert expects_continue(headers) == answered
    assert request_head("GET", b"/", b"h", headers, b"").split(b"\r\n")[2:-2] == [b"eXpect: " + value for value in arrive]


@pytest.mark.parametrize("name", [b"Authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"Content-Type"])
def test_connection_cannot_name_away_who_calls(name: bytes) -> None:
    head = request_head("GET", b"/", b"h", [(b"Connection", name), (name, b"v")], b"")
    assert name + b": v\r\n" in head


def test_control_headers_stay_behind() -> None:
    headers = [(b"Clearpane-User-Id", b"u"), (b"HELICONE-AUTH", b"k"), (b"helicone-unknown", b"x"), (b"X-Clearpane", b"stays")]
    assert request_head("GET", b"/", b"h", headers, b"") == b"GET / HTTP/1.1\r\nHost: h\r\nX-Clearpane: stays\r\n\r\n"


@pytest.mark.parametrize("value", [b"a\rb", b"a\nb", b"a\0b"])
def test_a_control_byte_is_refused_without_its_value(value: bytes) -> None:
    with pytest.raises(Refused, match="header X-Bad has a control byte") as refused:
        request_head("GET", b"/", b"h", [(b"X-Bad", value)], b"")
    assert value.decode() not in str(refused.value)


def test_an_answer_keeps_its_framing_and_loses_its_hop_lines() -> None:
    headers = [
        (b"Content-Type", b"text/event-stream"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Connection", b"keep-alive"),
        (b"Set-Cookie", b"a"),
        (b"set-cookie", b"b"),
    ]
    fields = b"\r\n" + b"".join(b"%b: %b\r\n" % line for line in headers)
    assert response_fields(fields) == (
        b"\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a\r\nset-cookie: b\r\n"
    )
    assert b"Transfer-Encoding" not in response_fields(fields, unframed=True)


def test_connection_cannot_name_away_the_framing_of_an_answer() -> None:
    assert response_fields(b"\r\nConnection: content-length\r\nContent-Length: 3\r\n") == b"\r\nContent-Length: 3\r\n"
    assert response_fields(b"\r\nConnection: close\r\n") == response_fields(b"\r\n") == b"\r\n"


def test_first_ignores_case() -> None:
    assert first([(b"A", b"0"), (b"X-Request-ID", b"1"), (b"x-request-id", b"2")], b"x-request-id") == b"1"
    assert first([], b"x") is None
