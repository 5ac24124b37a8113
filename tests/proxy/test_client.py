"""What proxy/client.py takes from inside aiohttp. A failure here names what a new aiohttp has changed."""

import asyncio
import inspect

import pytest
from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler


@pytest.mark.parametrize("name", ["chunked", "should_close", "upgrade", "raw_headers", "version"])
def test_a_request_message_still_says(name: str) -> None:
    assert hasattr(RawRequestMessage, name)


def test_a_request_still_holds_its_message_and_its_protocol() -> None:
    source = inspect.getsource(web.BaseRequest)
    assert "self._message = message" in source
    assert isinstance(web.BaseRequest.protocol, property)


def test_the_server_still_makes_its_connections_by_calling_itself() -> None:
    source = inspect.getsource(web.Server.__call__)
    assert "RequestHandler(" in source
    assert "loop=self._loop" in source
    assert "**self._kwargs" in source


def test_an_answer_still_needs_three_members_only() -> None:
    source = inspect.getsource(RequestHandler.finish_response) + inspect.getsource(RequestHandler.start)
    for part in ("prepare_meth = resp.prepare", "await prepare_meth(request)", "await resp.write_eof()", "bool(resp.keep_alive)"):
        assert part in source


def test_aiohttp_still_reads_on_behind_an_answer_only_where_the_body_has_not_ended() -> None:
    start = inspect.getsource(RequestHandler.start)
    assert start.index("await task") < start.index("if not payload.is_eof():") < start.index("await payload.readany()")


@pytest.mark.parametrize("name", ["connection_made", "connection_lost", "pause_writing", "resume_writing", "handle_error"])
def test_a_connection_still_has_the_methods_that_ours_extends(name: str) -> None:
    assert callable(getattr(RequestHandler, name))


def test_errors_of_the_parser_still_go_through_handle_error() -> None:
    assert "self.handle_error(" in inspect.getsource(RequestHandler._make_error_handler)


@pytest.mark.parametrize(
    "name",
    [
        "_waiter",
        "max_field_size",
        "_keepalive_handle",
        "_messages",
        "_message_tail",
        "_current_request",
        "_buffer_paused",
        "_upgraded",
        "_task_handler",
    ],
)
def test_a_connection_still_has_what_ours_looks_at(name: str) -> None:
    assert name in {slot for cls in RequestHandler.__mro__ for slot in getattr(cls, "__slots__", ())}


@pytest.mark.parametrize("name", ["_pause_reading_for_buffer", "_resume_reading_for_buffer"])
def test_a_connection_still_can_hold_its_transport_for_a_buffer(name: str) -> None:
    assert callable(getattr(RequestHandler, name))


def test_a_keep_alive_timeout_of_zero_still_starts_no_timer() -> None:
    assert "if self._keepalive_timeout > 0:" in inspect.getsource(RequestHandler.connection_made)
    assert callable(RequestHandler._process_keepalive)


async def test_the_parser_still_gives_whole_messages() -> None:
    from aiohttp.base_protocol import BaseProtocol
    from aiohttp.http_parser import HttpRequestParser

    loop = asyncio.get_running_loop()
    parser = HttpRequestParser(BaseProtocol(loop), loop, 1 << 16)
    messages, upgraded, tail = parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok")
    ((message, payload),) = messages
    assert (upgraded, tail, payload.is_eof(), message.method, message.path) == (False, b"", True, "POST", "/")
    parser.message_consumed()


def test_aiohttp_still_waits_for_requests_and_takes_bytes_as_ours_expects() -> None:
    start, received = inspect.getsource(RequestHandler.start), inspect.getsource(RequestHandler.data_received)
    assert "self._waiter = loop.create_future()" in start
    assert "self._waiter = None" in start
    assert "if self._force_close or self._close:" in received


def test_aiohttp_still_keeps_what_follows_an_upgrade_and_leaves_its_parser_out_of_it() -> None:
    received = inspect.getsource(RequestHandler.data_received)
    for part in (
        "self._upgraded = upgraded",
        "self._message_tail = tail",
        "self._message_tail += data",
        "self._pause_reading_for_buffer()",
    ):
        assert part in received
    for name in ("pause_reading", "resume_reading"):
        source = inspect.getsource(getattr(RequestHandler, name))
        assert "if not self._upgraded" in source
        assert f"self._{name.partition('_')[0]}_transport_reading()" in source
    assert callable(RequestHandler._resume_reading_for_buffer)
    assert "self._message_tail" in inspect.getsource(RequestHandler.finish_response)  # of an upgrade that was declined
