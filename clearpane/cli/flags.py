"""Flags that several commands share. Those that are settings are made from the settings' own descriptions: the two cannot part."""

import argparse
from collections.abc import Callable
from typing import Any, TypeVar

from clearpane import forms
from clearpane import settings as configuration

T = TypeVar("T")
_METAVARS = {
    "listen": "HOST:PORT",
    "admin": "HOST:PORT",
    "default_upstream": "URL",
    "upstream": "NAME=URL",
    "data": "DIR",
    "lake": "DIR|s3://BUCKET/PREFIX",
    "kafka": "HOST:PORT[,...]",
    "topic": "NAME",
    "intake": "URL",
    "workers": "N",
    "loop": "asyncio|uvloop",
    "flush_seconds": "S",
}


def add_settings(parser: argparse.ArgumentParser, *names: str) -> None:
    """Each flag's value stays None when it is not given, so that file and variables count."""
    for name in names:
        description = configuration.fields()[name].metadata["meaning"]
        flag = f"--{name.replace('_', '-')}"
        if name == "spool_only":
            parser.add_argument(flag, action="store_true", default=None, help=description)
        elif name == "upstream":
            parser.add_argument(flag, action="append", metavar=_METAVARS[name], help=f"{description}; repeatable")
        else:
            parser.add_argument(flag, metavar=_METAVARS[name], help=description)


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Which calls are meant; clearpane/cli/calls.py reads them."""
    parser.add_argument("--user", help="user id")
    parser.add_argument("--session", help="session id")
    parser.add_argument("--model", help="model, as answered or as requested")
    parser.add_argument("--provider", help="openai, anthropic, ...")
    parser.add_argument("--property", action="append", default=[], metavar="NAME=VALUE", help="repeatable")
    parser.add_argument("--request-id", metavar="ID", help="ours, or the caller's own")


def integer(least: int, most: int) -> Callable[[Any], int]:
    return _told(forms.integer(least, most))


def number(least: float, most: float) -> Callable[[Any], float]:
    return _told(forms.number(least, most))


def _told(parse: Callable[[Any], T]) -> Callable[[Any], T]:
    """argparse passes on the words of no other error."""

    def told(value: Any) -> T:
        try:
            return parse(value)
        except forms.Malformed as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return told
