from hypothesis import given
from hypothesis import strategies as st

from proxy.heads import is_plain, may_be_head, span_of

HEAD = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-Last: 1\r\n\r\n"


def test_the_span_of_a_request() -> None:
    span = span_of(HEAD + b"12345GET /")
    assert span is not None
    assert (span.head, span.size, span.length) == (len(HEAD), len(HEAD) + 5, 5)
    assert is_plain(span.key)


def test_heads_that_differ_in_their_length_alone_have_one_key() -> None:
    keys = {span.key for text in (b"5", b"0", b"123456") if (span := span_of(HEAD.replace(b"5", text))) is not None}
    assert len(keys) == 1


def test_no_length_is_another_key_than_some_length() -> None:
    with_length, without = span_of(HEAD), span_of(HEAD.replace(b"Content-Length: 5\r\n", b""))
    assert with_length is not None
    assert without is not None
    assert without.length is None
    assert with_length.key[1:] == without.key[1:]
    assert with_length.key != without.key


def test_what_more_than_one_reader_could_read_differently_is_not_plain() -> None:
    odd = (
        b"POST /v1/x HTTP/1.0\r\nHost: a\r\n\r\n",
        b"POST http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        HEAD.replace(b"X-Last", b"content-length"),
        HEAD.replace(b"X-Last: 1", b"Transfer-Encoding: chunked"),
        HEAD.replace(b"X-Last: 1", b"TRANSFER-ENCODING : chunked"),
        HEAD.replace(b"X-Last: 1", b"Upgrade: websocket"),
        HEAD.replace(b"X-Last: 1", b"Expect: 100-continue"),
        HEAD.replace(b"X-Last: 1", b" folded"),
        HEAD.replace(b"Content-Length: 5", b"Content-Length: +5"),
        HEAD.replace(b"Content-Length: 5", b"Content-Length:5"),
        HEAD.replace(b"Content-Length: 5", b"Content-Length: 5, 5"),
        HEAD.replace(b"Content-Length: 5", b"CONTENT-LENGTH: 5"),
        HEAD.replace(b"Host: a\r\n", b"Host: a\nTransfer-Encoding: chunked\r\n"),
        HEAD.replace(b"5", b"9" * 30),
    )
    for data in odd:
        span = span_of(data)
        assert span is not None
        assert not is_plain(span.key), data


@given(st.binary(max_size=200), st.integers(0, 60))
def test_bytes_behind_a_head_do_not_change_it(tail: bytes, cut: int) -> None:
    longer, alone = span_of(HEAD + tail), span_of(HEAD)
    assert longer is not None
    assert alone is not None
    assert (longer.key, longer.head, longer.size, longer.length) == (alone.key, alone.head, alone.size, alone.length)
    assert span_of(HEAD[:cut]) is None


@given(st.binary(max_size=300))
def test_any_bytes_have_a_span_or_none(data: bytes) -> None:
    span = span_of(data)
    if span is None:
        assert isinstance(may_be_head(data), bool)
    else:
        assert span.head <= span.size
        assert is_plain(span.key) in {True, False}


def test_bytes_that_no_head_begins_with_are_left_to_the_parser() -> None:
    assert may_be_head(b"POST /v1/x HTTP/1.1\r\nHo")
    assert may_be_head(b"P")
    assert not may_be_head(b"\x16\x03\x01")
    assert not may_be_head(b"\r\n")
    assert not may_be_head(b"GET / HTTP/1.1\nHost: a\n\n")
