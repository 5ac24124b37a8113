"""Which way a record goes, and when Kafka may be tried again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.shipper.backoff import Backoff
from proxy.shipper.circuit import Circuit, State
from proxy.shipper.delivery import Choice, Ways


@pytest.mark.parametrize(
    ("kafka", "slots", "deciding", "intake", "size", "choice"),
    [
        (True, 9, False, True, 10, Choice.KAFKA),
        (True, 9, False, False, 10, Choice.KAFKA),
        (True, 0, False, True, 10, Choice.HTTP),
        (True, 0, False, False, 10, Choice.WAIT),
        (True, 0, True, True, 10, Choice.WAIT),
        (True, 9, False, True, 101, Choice.HTTP),
        (True, 0, True, True, 101, Choice.HTTP),
        (True, 9, False, False, 101, Choice.SHRINK),
        (False, 0, False, True, 10, Choice.HTTP),
        (False, 0, False, True, 101, Choice.HTTP),
        (False, 0, False, False, 10, Choice.WAIT),
    ],
)
def test_ways(kafka: bool, slots: int, deciding: bool, intake: bool, size: int, choice: Choice) -> None:
    ways = Ways(
        kafka=kafka, kafka_slots=slots, kafka_deciding=deciding, kafka_record_bytes_max=100, intake=intake, intake_slots=5
    )  # fmt: skip
    assert ways.choose(size) is choice


def test_slots_are_used_up() -> None:
    ways = Ways(kafka=True, kafka_slots=1, kafka_deciding=False, kafka_record_bytes_max=100, intake=True, intake_slots=1)
    assert [ways.choose(1) for _ in range(3)] == [Choice.KAFKA, Choice.HTTP, Choice.WAIT]


def test_a_circuit_that_never_failed_closes_when_kafka_is_there() -> None:
    circuit = Circuit(1.0)
    assert (circuit.state, circuit.slots()) == (State.PROBING, 0)
    circuit.started()
    assert circuit.state is State.CLOSED


def test_kafka_that_could_not_be_reached_is_trusted_once_it_can() -> None:
    circuit = Circuit(1.0)
    circuit.failed(10.0, in_doubt=False)
    assert (circuit.state, circuit.slots(), circuit.wait_s(10.4)) == (State.OPEN, 0, pytest.approx(0.6))
    circuit.started()
    assert circuit.state is State.CLOSED


def test_after_a_doubt_one_record_must_come_through() -> None:
    circuit = Circuit(1.0)
    circuit.started()
    circuit.failed(10.0, in_doubt=True)
    circuit.failed(11.0, in_doubt=False)
    circuit.started()
    assert (circuit.state, circuit.slots()) == (State.PROBING, 1)
    circuit.took()
    assert circuit.slots() == 0
    circuit.acknowledged()
    assert circuit.slots() > 1


@given(failures=st.integers(1, 200), asked_s=st.floats(-5, 1e6))
def test_a_pause_has_bounds(failures: int, asked_s: float) -> None:
    backoff = Backoff()
    pauses = [backoff.failed(asked_s) for _ in range(failures)]
    least = min(max(asked_s, 0.0), 60.0)
    assert all(least <= pause <= least + 10.0 for pause in pauses)
    backoff.succeeded()
    assert backoff.failed() <= 0.1
