"""The upstream's answers: strict about what ends a message; any split of the bytes gives the same relay."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.answer import Framing, Head, parse_head
from proxy.upstream.faults import Broken, Malformed
from proxy.upstream.parser import INTERIM_MAX, Parser, Piece

LIMITS = {"head_bytes_max": 65536, "headers_max": 256}


class Seen:
    """What came out: interim heads, the head, raw and payload bytes, whether the end came."""

    def __init__(self) -> None:
        self.interim: list[int] = []
        self.head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self.raw = b""
        self.payload = b""
        self.ended = False
        self.excess = False
        self.reusable = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seen) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return repr(vars(self))


def feed(pieces: list[bytes], method: str = "POST") -> Seen:
    parser, seen = Parser(method, **LIMITS), Seen()
    for piece in pieces:
        for event in parser.feed(piece):
            assert not seen.ended
            if event is None:
                seen.ended = True
            elif isinstance(event, Head):
                if event.interim:
                    seen.interim.append(event.status)
                else:
                    assert seen.head is None
                    seen.head = event.status, event.headers
            else:
                assert isinstance(event, Piece)
                seen.raw += event.raw
                seen.payload += b"".join(event.payload)
    seen.excess, seen.reusable = parser.excess, parser.reusable
    return seen


def splits(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello",
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    CHUNKED + b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n",
    CHUNKED + b"00a\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\nHTTP/1.1 200 smuggled\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\nextra",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n",
]


@given(st.sampled_from(ANSWERS), st.lists(st.integers(0, 10_000), max_size=40))
def test_any_split_gives_the_same_relay(answer: bytes, cuts: list[int]) -> None:
    assert feed(splits(answer, cuts)) == feed([answer])


@given(st.sampled_from(ANSWERS))
def test_byte_by_byte_gives_the_same_relay(answer: bytes) -> None:
    assert feed([answer[i : i + 1] for i in range(len(answer))]) == feed([answer])


@given(st.lists(st.binary(max_size=60), max_size=12), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", CHUNKED]))
def test_garbage_raises_only_malformed(pieces: list[bytes], start: bytes) -> None:
    parser = Parser("GET", **LIMITS)
    try:
        for piece in [start, *pieces]:
            parser.feed(piece)
    except Malformed:
        pass


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.lists(st.integers(0, 10_000), max_size=20))
def test_chunked_payload_comes_out_whole_and_the_framing_untouched(bodies: list[bytes], cuts: list[int]) -> None:
    framed = b"".join(b"%X\r\n%b\r\n" % (len(body), body) for body in bodies) + b"0\r\n\r\n"
    seen = feed(splits(CHUNKED + framed, cuts))
    assert (seen.payload, seen.raw, seen.ended, seen.reusable) == (b"".join(bodies), framed, True, True)


def test_bytes_behind_the_end_never_reach_anybody_and_end_the_connection() -> None:
    seen = feed([ANSWERS[3]])
    assert seen.raw.endswith(b"X-Trailer: 1\r\n\r\n")
    assert (seen.ended, seen.excess, seen.reusable) == (True, True, False)


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"


@given(st.binary(max_size=200), st.lists(st.integers(0, 400), max_size=20))
def test_behind_a_switch_that_was_asked_for_everything_is_body(behind: bytes, cuts: list[int]) -> None:
    parser, payload = Parser("GET", **LIMITS), b""
    parser.may_switch = True
    for piece in splits(SWITCH + behind, cuts):
        for event in parser.feed(piece):
            if isinstance(event, Head):
                assert (event.status, event.passing) == (101, SWITCH[32:-2])
            elif event is not None:
                payload += event.raw
    assert (payload, parser.complete, parser.reusable) == (behind, False, False)
    parser.eof()
    assert (parser.complete, parser.reusable) == (True, False)


@pytest.mark.parametrize("upgrade", [b"", b"Upgrade: h2c\r\n", b"Upgrade: websocket\r\nUpgrade: h2c\r\n"])
def test_a_switch_to_anything_else_is_malformed(upgrade: bytes) -> None:
    parser = Parser("GET", **LIMITS)
    parser.may_switch = True
    with pytest.raises(Malformed, match="other than the WebSocket"):
        parser.feed(b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade + b"\r\n")


def test_no_body_where_none_can_be() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    assert feed([head], "HEAD").ended
    assert feed([head], "HEAD").reusable
    assert not feed([head], "GET").ended
    assert feed([ANSWERS[6]]).ended


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: nameless\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\nX: y\n\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 1000 OK\r\n\r\n",
        b"HTTP/1.1 200OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"5 5\r\n",
        CHUNKED + b"-5\r\n",
        CHUNKED + b"0x5\r\n",
        CHUNKED + b"5\nhello\r\n",
        CHUNKED + b"5\r\nhelloX\r\n",
        CHUNKED + b"ffffffffffffffffff\r\n",
        CHUNKED + b"5;" + b"a" * 5000,
        CHUNKED + b"0\r\nnot a trailer\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * (INTERIM_MAX + 1),
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 300,
    ],
)
def test_ambiguous_or_malformed_answers_are_refused(answer: bytes) -> None:
    with pytest.raises(Malformed):
        feed([answer])


def test_equal_lengths_twice_are_one_length() -> None:
    assert feed([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"]).ended


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", ANSWERS[0][:-1], CHUNKED + b"5\r\nhel", CHUNKED + b"5\r\nhello\r\n0\r\n"])
def test_an_early_end_is_broken(answer: bytes) -> None:
    parser = Parser("GET", **LIMITS)
    parser.feed(answer)
    with pytest.raises(Broken):
        parser.eof()


def test_a_body_that_ends_with_the_connection() -> None:
    parser = Parser("GET", **LIMITS)
    parser.feed(b"HTTP/1.1 200 OK\r\n\r\nsome")
    assert parser.head is not None
    assert parser.head.framing is Framing.CLOSE
    parser.eof()
    assert parser.complete
    assert not parser.reusable


@pytest.mark.parametrize(
    "head", [b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n"]
)
def test_connections_that_say_so_are_not_used_again(head: bytes) -> None:
    assert not feed([head]).reusable


@pytest.mark.parametrize("framing", [b"Content-Length: 42", b"content-length: 0001", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 204 N\r\n%b\r\n\r\n", b"HTTP/1.1 103 E\r\n%b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
)
def test_a_connection_on_which_a_body_may_still_come_is_not_used_again(answer: bytes, framing: bytes) -> None:
    """What states a body and cannot have one is passed on, and nothing else of its connection."""
    seen = feed([answer % framing])
    assert (seen.ended, seen.raw, seen.reusable) == (True, b"", False)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 204 N\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 204 N\r\n\r\n", ANSWERS[1], ANSWERS[6]])
def test_an_answer_that_cannot_have_a_body_leaves_its_connection_to_the_next(answer: bytes) -> None:
    assert feed([answer]).reusable


@given(st.integers(100, 999), st.sampled_from([b"", b" ", b" Odd", b" caf\xe9\t two  spaces "]), st.sampled_from([b"0", b"1"]))
def test_a_status_line_goes_on_as_it_came_but_for_its_version(status: int, reason: bytes, minor: bytes) -> None:
    head = parse_head(b"HTTP/1.%b %d%b\r\nContent-Length: 0" % (minor, status, reason), "GET")
    assert (head.status, head.status_line) == (status, b"HTTP/1.1 %d%b" % (status, reason))
    assert head.interim == (status < 200 and status != 101)
