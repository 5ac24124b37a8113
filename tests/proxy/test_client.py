"""What proxy/client.py takes from inside aiohttp. A failure here names what a new aiohttp has changed."""

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


@pytest.mark.parametrize("name", ["connection_made", "connection_lost", "pause_writing", "resume_writing", "handle_error"])
def test_a_connection_still_has_the_methods_that_ours_extends(name: str) -> None:
    assert callable(getattr(RequestHandler, name))


def test_errors_of_the_parser_still_go_through_handle_error() -> None:
    assert "self.handle_error(" in inspect.getsource(RequestHandler._make_error_handler)
