"""Flags that are settings: made from the settings' own descriptions, so the two cannot part."""

import argparse

from clearpane import settings as configuration

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
