"""What Clearpane has to reach, each bar with the figure of this run and whether it is met."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.results import Results, Value, calls_per_cpu_s, peak_mib, time_ms

Figure = Callable[[Results, str], float | None]


@dataclass(frozen=True, slots=True)
class Bar:
    """`figure` of a target has to be at least `least` or at most `most`."""

    title: str
    figure: Figure
    least: float | None = None
    most: float | None = None
    digits: int = 2

    def met(self, figure: float) -> bool:
        return (self.least is None or figure >= self.least) and (self.most is None or figure <= self.most)

    @property
    def limit(self) -> str:
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"


def _ratio(to: str, scenario: str, value: Value) -> Figure:
    return lambda results, target: results.ratio(target, to, scenario, value)


def _added(scenario: str, value: Value) -> Figure:
    return lambda results, target: results.added(target, scenario, value)


def _added_of_nginx(scenario: str, value: Value) -> Figure:
    """What the target adds to a direct call, over what nginx adds."""

    def figure(results: Results, target: str) -> float | None:
        ours, theirs = results.added(target, scenario, value), results.added("nginx", scenario, value)
        return ours / theirs if ours is not None and theirs is not None and theirs > 0 else None

    return figure


def _peak_mb(results: Results, target: str) -> float | None:
    mib = results.median(target, "streams_1000", peak_mib)
    return None if mib is None else mib * 1.048576


BARS = (
    Bar("32 connections: calls per CPU second, of nginx's", _ratio("nginx", "json_32", calls_per_cpu_s), least=0.33),
    Bar("32 connections: calls per CPU second, of Envoy's", _ratio("envoy", "json_32", calls_per_cpu_s), least=1),
    Bar("32 connections: calls per CPU second, of crabllm's", _ratio("crabllm", "json_32", calls_per_cpu_s), least=1),
    Bar("1 connection: added p50, ms", _added("json_1", time_ms("lat", "p50")), most=0.2, digits=3),
    Bar("1 connection: added p99, ms", _added("json_1", time_ms("lat", "p99")), most=1, digits=3),
    Bar("100 streams: added time to first byte p99, of nginx's", _added_of_nginx("streams_100", time_ms("ttfb", "p99")), most=2),
    Bar("100 streams: delay of a chunk p99, of nginx's", _ratio("nginx", "streams_100", time_ms("chunk", "p99")), most=2),
    Bar("1,000 streams: added time to first byte p99, of nginx's", _added_of_nginx("streams_1000", time_ms("ttfb", "p99")), most=2),
    Bar("1,000 streams: delay of a chunk p99, of nginx's", _ratio("nginx", "streams_1000", time_ms("chunk", "p99")), most=2),
    Bar("1,000 streams: peak RSS of the worker, MB", _peak_mb, most=150, digits=0),
    Bar("overload: longest wait of a client, of nginx's", _ratio("nginx", "overload", time_ms("wait", "max")), most=2),
)


def table(results: Results, targets: list[str]) -> list[tuple[str, ...]]:
    """Bars without a figure are left out."""
    rows = [(bar.title, bar.limit, *(_cell(bar, bar.figure(results, target)) for target in targets)) for bar in BARS]
    return [("bar", "limit", *targets), *(row for row in rows if any(row[2:]))]


def _cell(bar: Bar, figure: float | None) -> str:
    return "" if figure is None else f"{figure:,.{bar.digits}f} {'met' if bar.met(figure) else '**missed**'}"
