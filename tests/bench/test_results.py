"""Figures: medians over rounds, compared inside a round, and only the worker counted as the proxy."""

from pathlib import Path
from typing import Any

import pytest

from bench import bars, report
from bench.results import Results, calls_per_cpu_s, calls_per_s, time_ms, us_per_call
from bench.scenarios import Result

FACTS: dict[str, Any] = {
    "date": "2026-01-01",
    "commit": "c0ffee",
    "versions": ["Python 3.11"],
    "machine": "abacus",
    "missing": {"portkey": "no Node.js"},
    "rounds": 3,
    "seconds": 1.0,
}


def run(
    target: str, number: int, *, rps: float = 100.0, p50: float = 1000.0, cpu_s: dict[str, float] | None = None, **more: object
) -> Result:
    times = {"n": 10, "p50": p50, "p99": 2 * p50, "max": 3 * p50}
    load = {"rps": rps, "done": rps, "ended": rps, "deltas": 0, "deltas_per_s": 0.0, "hash": "a", "mismatched": 0}
    load |= {"bad_status": 0, "broken": 0, "unfinished": 0, "lat": times, "ttfb": times, "chunk": times, "wait": times}
    scenario = str(more.pop("scenario", "json_32"))
    return Result(target, scenario, number, load | more, {"other": 1.0} if cpu_s is None else cpu_s, {"other": 10.0})


def test_a_slow_round_of_the_machine_does_not_change_what_is_compared_in_it() -> None:
    rounds = [(100.0, 50.0), (10.0, 5.0), (80.0, 40.0)]
    results = Results([], FACTS)
    for number, (theirs, ours) in enumerate(rounds):
        results.add(run("nginx", number, rps=theirs))
        results.add(run("clearpane", number, rps=ours))
    assert results.median("clearpane", "json_32", calls_per_s) == 40.0
    assert results.ratio("clearpane", "nginx", "json_32", calls_per_s) == 0.5


def test_added_is_above_direct_in_the_same_round() -> None:
    results = Results([run("direct", 0, p50=100), run("direct", 1, p50=1100), run("envoy", 0, p50=300), run("envoy", 1, p50=1300)], FACTS)
    assert results.added("envoy", "json_32", time_ms("lat", "p50")) == pytest.approx(0.2)
    assert results.added("absent", "json_32", time_ms("lat", "p50")) is None


def test_the_worker_is_the_proxy_and_any_other_target_is_the_proxy_as_a_whole() -> None:
    ours = run("clearpane", 0, rps=100, cpu_s={"worker": 0.5, "recorder": 1.0, "other": 0.1})
    theirs = run("portkey", 0, rps=100, cpu_s={"other": 2.0})
    assert (calls_per_cpu_s(ours), calls_per_cpu_s(theirs)) == (200.0, 50.0)
    assert us_per_call("recorder")(ours) == pytest.approx(10_000)
    assert us_per_call("shipper")(ours) is None


def test_bytes_are_the_same_only_if_every_answer_equals_the_direct_one() -> None:
    results = Results([run("direct", 0), run("nginx", 0), run("litellm", 0, hash="b"), run("tensorzero", 0, mismatched=1)], FACTS)
    assert [results.same_bytes(target, "json_32") for target in ("nginx", "litellm", "tensorzero")] == [True, False, False]
    assert results.same_bytes("nginx", "overload") is None
    assert results.same_bytes("absent", "json_32") is None


def test_a_target_that_ended_no_answer_is_not_said_to_change_bytes() -> None:
    results = Results([run("direct", 0), run("litellm", 0, hash="", ended=0)], FACTS)
    assert results.same_bytes("litellm", "json_32") is None


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    results = Results([run("direct", 0), run("nginx", 0)], FACTS)
    results.save(tmp_path / "results.jsonl")
    again = Results.saved(tmp_path / "results.jsonl")
    assert again.all == results.all
    assert report.text(again) == report.text(results)


@pytest.mark.parametrize(("figure", "cell"), [(0.4, "0.40 met"), (0.33, "0.33 met"), (0.329, "0.33 **missed**")])
def test_a_bar_is_met_from_its_limit_on(figure: float, cell: str) -> None:
    results = Results([run("nginx", 0, rps=1000), run("clearpane", 0, rps=1000 * figure)], FACTS)
    assert [row[2] for row in bars.table(results, ["clearpane"]) if "of nginx's" in row[0] and "32" in row[0]] == [cell]


def test_a_bar_for_a_peer_that_was_not_there_is_left_out() -> None:
    results = Results([run("nginx", 0), run("clearpane", 0)], FACTS)
    assert not [row for row in bars.table(results, ["clearpane"]) if "Envoy" in row[0]]


def test_the_report_says_what_is_missing_and_leaves_out_what_was_not_measured() -> None:
    shown = report.text(Results([run("direct", 0), run("nginx", 0)], FACTS))
    assert "Not measured: portkey: no Node.js." in shown
    assert "| nginx |" in shown
    assert "### Streams" not in shown
    assert "256" not in shown.partition("\n| ---")[0]


def test_a_table_goes_between_the_marks_and_nothing_else_is_touched(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- x: begin -->\nold \\1\n<!-- x: end -->\nafter\n", encoding="utf-8")
    report.write(page, "x", r"new \1 \g<0>")
    assert page.read_text(encoding="utf-8") == "before\n<!-- x: begin -->\n\nnew \\1 \\g<0>\n\n<!-- x: end -->\nafter\n"
    with pytest.raises(ValueError, match="needs the marks"):
        report.write(page, "y", "")
