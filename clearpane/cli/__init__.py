"""The command `clearpane`: flags to settings, settings to processes and readers. The composition root."""

import argparse
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

from clearpane import __version__
from clearpane import settings as configuration
from clearpane.contract import identifiers
from clearpane.runtime.children import ChildFailed
from clearpane.settings import SettingsError

# sysexits.h: the configuration is wrong.
EXIT_CONFIGURATION = 78
# Which wheel this is (docs/decisions/0013-compiled.md).
_BUILD = "" if identifiers.__file__.endswith(".py") else " (compiled)"

# command -> its module and the extra that brings what it imports. Only the module that is asked for is
# imported: a proxy's image needs no DuckDB.
_COMMANDS = {
    "up": ("run", "all"),
    "proxy": ("run", "proxy"),
    "consumer": ("run", "consumer"),
    "demo": ("demo", "all"),
    "calls": ("calls", "query"),
    "show": ("show", "query"),
    "query": ("query", "query"),
    "verify": ("verify", "query"),
    "reconcile": ("reconcile", "all"),
    "index": ("index", "all"),
    "retention": ("retention", "query"),
    "spool": ("spool", "proxy"),
    "reprice": ("reprice", "consumer"),
    "prices": ("prices", "consumer"),
    "config": ("configure", "proxy"),
}


def main(arguments: list[str] | None = None) -> NoReturn:
    code = _main(sys.argv[1:] if arguments is None else arguments)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: threads of obstore and pyarrow that still hold Python objects abort the process (SIGABRT, though
    # all is done) when they meet an interpreter that is being torn down.
    os._exit(code)


def _main(arguments: list[str]) -> int:
    asked = next((argument for argument in arguments if argument in _COMMANDS), None)
    try:
        parsed = _parser([asked] if asked else list(_COMMANDS)).parse_args(arguments)
        known = configuration.fields()
        flags = {name: value for name, value in vars(parsed).items() if name in known}
        settings = configuration.load(flags, configuration.environment(), parsed.config)
        code: int = parsed.run(parsed, settings)
    except SettingsError as error:
        print("clearpane: these settings need a change:", *error.problems, sep="\n  ", file=sys.stderr)
        return EXIT_CONFIGURATION
    except ImportError as error:
        extra = _COMMANDS[asked][1] if asked else "all"
        print(f"clearpane: {error.name or error} is not installed: pip install 'clearpane[{extra}]'", file=sys.stderr)
        return EXIT_CONFIGURATION
    except (ChildFailed, TimeoutError, OSError) as error:
        print(f"clearpane: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser(names: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clearpane", description="A transparent LLM reverse proxy that records every call once.")
    parser.add_argument("--version", action="version", version=f"clearpane {__version__}{_BUILD}")
    parser.add_argument(
        "--config", type=Path, default=None, metavar="FILE", help="TOML file with settings; default ./clearpane.toml if it exists"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    modules = dict.fromkeys(_COMMANDS[name][0] for name in names)
    for module in modules:
        try:
            found = importlib.import_module(f"clearpane.cli.{module}")
        except ImportError:
            if len(modules) == 1:  # asked for: the caller says what is missing
                raise
            continue  # this installation has not the extra: its help shows what it can do
        found.register(commands)
    return parser
