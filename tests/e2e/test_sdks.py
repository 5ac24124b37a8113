"""Promise 1, transparent: the official SDKs get through the proxy, by `base_url` alone, what they get directly."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from openai import OpenAI

from tests.e2e.sdk_calls import QUESTION, SCRIPTS, Base
from tests.e2e.system import free_port

START_S = 30.0
STOP_S = 10.0


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m ...`, stopped by SIGTERM at the end; by SIGKILL if that takes too long."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    running = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=environment
    )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(STOP_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait(STOP_S)
        running.stdout.close()


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read()


def wait_until_ready(running: subprocess.Popen[str], url: str) -> None:
    deadline = time.monotonic() + START_S
    while running.poll() is None and time.monotonic() < deadline:
        try:
            get(url)
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"not ready at {url} after {START_S} s; exit code {running.poll()}")


@pytest.fixture(scope="module")
def fake() -> Iterator[str]:
    with process("clearpane.cli.fake", "--port", "0", "--pace", "0") as running:
        yield running.stdout.readline().split()[1]


@pytest.fixture(scope="module")
def proxy(fake: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    listen, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    data = tmp_path_factory.mktemp("proxy")
    upstreams = ("--default-upstream", fake, "--upstream", f"openai={fake}", "--upstream", f"anthropic={fake}")
    command = ("clearpane.cli", "proxy", "--spool-only", "--listen", listen, "--admin", admin, "--data", str(data), *upstreams)
    with process(*command) as running:
        wait_until_ready(running, f"http://{admin}/readyz")
        yield f"http://{listen}"


@dataclass(frozen=True)
class Ways:
    """The same provider, with the proxy between and without."""

    ledger: str
    direct: Base
    named: Base
    default: Base


@pytest.fixture(scope="module")
def ways(fake: str, proxy: str) -> Ways:
    return Ways(
        ledger=f"{fake}/_ledger",
        direct=Base(f"{fake}/v1", fake),
        named=Base(f"{proxy}/openai/v1", f"{proxy}/anthropic"),
        default=Base(f"{proxy}/v1", proxy),
    )


class Account:
    """What the provider saw since the last look."""

    def __init__(self, url: str) -> None:
        self._url, self._seen = url, len(self._entries(url))

    @staticmethod
    def _entries(url: str) -> list[dict[str, Any]]:
        return json.loads(get(url))

    def since(self, expected: int | None = None) -> list[dict[str, Any]]:
        """A stream is entered a moment after its last byte: waits for the expected number."""
        deadline = time.monotonic() + 5
        while len(found := self._entries(self._url)[self._seen :]) < (expected or 0) and time.monotonic() < deadline:
            time.sleep(0.02)
        self._seen += len(found)
        return sorted(found, key=lambda entry: entry["request_sha256"])


@pytest.mark.parametrize("way", ["named", "default"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_an_sdk_gets_the_same_through_the_proxy(ways: Ways, script: Callable[[Base], Any], way: str) -> None:
    account = Account(ways.ledger)
    direct = script(ways.direct)
    asked = account.since()
    assert direct
    assert script(getattr(ways, way)) == direct
    assert account.since(len(asked)) == asked, "the provider was asked something else"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (403, "PermissionDeniedError"),
        (404, "NotFoundError"),
        (409, "ConflictError"),
        (422, "UnprocessableEntityError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
        (503, None),
        (529, None),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_error_keeps_its_class_body_and_headers(ways: Ways, status: int, kind: str | None, streamed: bool) -> None:
    headers = {"Fake-Status": str(status)}

    def refused(base: Base) -> Any:
        with base.client() as client, pytest.raises(openai.APIStatusError) as ours:
            client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION, stream=streamed, extra_headers=headers)
        with base.claude() as client, pytest.raises(anthropic.APIStatusError) as theirs:
            client.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=QUESTION, stream=streamed, extra_headers=headers)
        return [
            (type(error).__name__, error.status_code, str(error), error.body, error.request_id, error.response.headers.get("retry-after"))
            for error in (ours.value, theirs.value)
        ]

    direct = refused(ways.direct)
    assert [error[1] for error in direct] == [status, status]
    assert kind is None or [error[0] for error in direct] == [kind, kind]
    assert refused(ways.named) == direct
    assert refused(ways.default) == direct


def test_a_wrong_key_is_the_providers_to_refuse(ways: Ways) -> None:
    def refused(base: Base) -> Any:
        with OpenAI(base_url=base.openai, api_key="wrong", max_retries=0) as client, pytest.raises(openai.AuthenticationError) as error:
            client.models.list()
        return error.value.body, error.value.request_id

    assert refused(ways.named) == refused(ways.direct)


def test_retries_are_the_sdks_own(ways: Ways) -> None:
    """Two retries of the SDK are three calls of the provider: the proxy adds none and hides none."""
    account = Account(ways.ledger)
    headers = {"Fake-Status": "429"}
    with ways.named.client(max_retries=2) as client, pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION, extra_headers=headers)
    assert [entry["status"] for entry in account.since(3)] == [429, 429, 429]


def test_control_headers_stay_with_the_proxy(ways: Ways) -> None:
    headers = {"Clearpane-User-Id": "ada", "Helicone-Session-Id": "s-1", "Clearpane-Property-Team": "search"}
    with ways.direct.client() as client:
        direct = client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION).model_dump()
    with ways.named.client() as client:
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=QUESTION, extra_headers=headers)
    assert raw.parse().model_dump() == direct
    assert raw.headers.get("clearpane-id")
    assert raw.headers.get("clearpane-ignored") is None
