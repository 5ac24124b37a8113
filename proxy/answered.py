"""What aiohttp's server is told of answers that were written past it, and what is asked of its parser."""

from typing import TYPE_CHECKING, cast

from aiohttp import web
from aiohttp.http_parser import HttpRequestParser

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest


class WeakParser(Exception):
    """aiohttp fell back to its Python parser, which is weaker against smuggling."""


def assert_c_parser() -> None:
    """Raises WeakParser."""
    if HttpRequestParser.__module__ != "aiohttp._http_parser":
        raise WeakParser("aiohttp's compiled parser is missing: install a wheel of aiohttp, without AIOHTTP_NO_EXTENSIONS")


class Relayed:
    """What a handler returns to aiohttp when its answer has been written: nothing is left to send."""

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, request: "BaseRequest") -> None:
        """aiohttp reads on what is left of a body; of one whose framing is broken nothing is, and trying is an error in its log."""
        if request.content.exception() is not None:
            request.content.feed_eof()

    async def write_eof(self) -> None:
        return None

    def as_response(self) -> web.StreamResponse:
        """aiohttp asks for these three members only."""
        return cast("web.StreamResponse", self)
