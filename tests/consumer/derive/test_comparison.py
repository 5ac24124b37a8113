"""The price check: what differs is named, what our book does not have is counted, and a damaged map is refused."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearpane.cli import _main
from consumer.derive import PriceBook
from consumer.derive.comparison import NoPriceMap, compare

AT = datetime(2026, 11, 20, tzinfo=UTC)
BOOK = PriceBook()
# gpt-5.4 and claude-sonnet-4-5 as their makers' price lists have them.
SAME = {
    "gpt-5.4": {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 2.5e-06,
        "input_cost_per_token_above_272k_tokens": 5e-06,
        "input_cost_per_token_flex": 1.25e-06,
        "input_cost_per_token_batches": 1.25e-06,
        "cache_read_input_token_cost": 2.5e-07,
        "output_cost_per_token": 1.5e-05,
        "output_cost_per_token_priority": 3e-05,
        "output_cost_per_token_above_272k_tokens": 2.25e-05,
        "search_context_cost_per_query": {"search_context_size_low": 0.01},
        "max_tokens": 128000,
    },
    "claude-sonnet-4-5": {
        "litellm_provider": "anthropic",
        "mode": "chat",
        "input_cost_per_token": 3e-06,
        "cache_creation_input_token_cost": 3.75e-06,
        "cache_creation_input_token_cost_above_1hr": 6e-06,
        "output_cost_per_token": 1.5e-05,
    },
    "sample_spec": {"litellm_provider": "one of them", "mode": "chat"},
    "dall-e": {"litellm_provider": "openai", "mode": "image_generation", "input_cost_per_token": 9},
}


def of(table: dict[str, Any], tolerance: str = "0.01", *providers: str) -> Any:
    return compare(json.dumps(table).encode(), BOOK, at=AT, tolerance=Decimal(tolerance), providers=providers)


def changed(model: str, **prices: float) -> dict[str, Any]:
    return {**SAME, model: {**SAME[model], **prices}}


def test_the_same_prices_have_no_difference() -> None:
    report = of(SAME, "0")
    assert (report.models, report.prices, report.unpriced, report.missing, report.differences) == (2, 12, 0, [], [])


@pytest.mark.parametrize(
    ("table", "named"),
    [
        (changed("gpt-5.4", output_cost_per_token=2e-05), ("openai", "gpt-5.4", "output_tokens", "", "15", "20")),
        (
            changed("gpt-5.4", input_cost_per_token_above_272k_tokens=6e-06),
            ("openai", "gpt-5.4", "input_tokens", ">272000 input tokens", "5", "6"),
        ),
        (changed("gpt-5.4", input_cost_per_token_batches=1e-06), ("openai", "gpt-5.4", "input_tokens", "batch", "1.25", "1")),
        (
            changed("claude-sonnet-4-5", cache_creation_input_token_cost_above_1hr=0),
            ("anthropic", "claude-sonnet-4-5", "cache_write_1h_tokens", "", "6", "0"),
        ),
    ],
)
def test_another_price_is_named(table: dict[str, Any], named: tuple[str, ...]) -> None:
    (found,) = of(table).differences
    assert (found.provider, found.model, found.leaf, found.variant, str(found.ours), f"{found.theirs:f}") == named


def test_the_tolerance_lets_small_differences_pass() -> None:
    table = changed("gpt-5.4", output_cost_per_token=1.51e-05)
    assert of(table).differences == []
    assert [d.leaf for d in of(table, "0.001").differences] == ["output_tokens"]


def test_what_we_do_not_have_is_counted_and_no_difference() -> None:
    more = {"groq/brand-new": {"litellm_provider": "groq", "mode": "chat", "input_cost_per_token": 1e-06}}
    report = of({**changed("claude-sonnet-4-5", input_cost_per_token_flex=1e-06), **more})
    assert (report.missing, report.unpriced, report.differences) == (["groq/brand-new"], 1, [])
    assert of({**SAME, **more}, "0", "groq").models == 0


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"a": 1}', b"[" * 100_000])
def test_what_is_no_price_map_is_refused(data: bytes) -> None:
    with pytest.raises(NoPriceMap):
        compare(data, BOOK, at=AT, tolerance=Decimal(0))


@given(st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5), max_size=5))
def test_any_entry_can_be_compared(entry: dict[str, Any]) -> None:
    assert of({**SAME, "gpt-4o": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e300, **entry}}).models >= 2


def check(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = _main(["prices", "check", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_command_says_by_its_exit_code_whether_they_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "map.json"
    file.write_text(json.dumps(SAME))
    assert check(capsys, str(file))[0] == 0
    file.write_text(json.dumps(changed("gpt-5.4", output_cost_per_token=3e-05)))
    code, out, _ = check(capsys, str(file))
    assert (code, "-50.0 %" in out, "1 of 12 prices of 2 models differ" in out) == (1, True, True)
    code, out, _ = check(capsys, str(file), "--json", "--provider", "openai")
    found = json.loads(out)
    assert (code, found["models"], [d["theirs"] for d in found["differences"]]) == (1, 1, ["30"])
    assert check(capsys, str(file), "--tolerance", "60")[0] == 0
    assert check(capsys, str(tmp_path / "none"))[0] == 2
    file.write_text("no")
    assert check(capsys, str(file))[0] == 2


class Map(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/map.json" else 404)
        self.end_headers()
        self.wfile.write(json.dumps(SAME).encode())

    def log_message(self, *args: object) -> None:
        pass


def test_the_map_may_be_a_url(capsys: pytest.CaptureFixture[str]) -> None:
    server = HTTPServer(("127.0.0.1", 0), Map)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        assert check(capsys, f"{url}/map.json")[0] == 0
        code, _, err = check(capsys, f"{url}/other")
        assert (code, "404" in err) == (2, True)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
