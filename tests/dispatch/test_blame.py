"""Whom the dispatcher blames: bounds of faults in a row, and how suspects are told apart."""

from __future__ import annotations

from dataclasses import replace

from sdbatch.dispatch import policy
from sdbatch.dispatch.blame import FaultCounts, suspects_of
from sdbatch.errors import MachineError, ModelLoadFailed
from sdbatch.plan.window import bisected
from sdbatch.types import Request, Unit


def _unit(*ids: str, solo: bool = False, attempt: int = 0) -> Unit:
    requests = tuple(
        Request(
            id=name,
            request_key=f"key-{name}",
            recipe="{}",
            outputs=(0,),
            sources=(),
            model="a",
            batch_key="a",
            cost_tflop=1.0,
            attempt=attempt,
        )
        for name in ids
    )
    return Unit(id="000000", model="a", requests=requests, batch_size=4, cost_tflop=float(len(ids)), solo=solo)


def _ids(parts: list[tuple[Request, ...]] | None) -> list[tuple[str, ...]] | None:
    return None if parts is None else [tuple(request.id for request in part) for part in parts]


def test_machine_faults_count_in_a_row_and_a_unit_that_ends_clears_them() -> None:
    faults = FaultCounts()
    below = [faults.add_machine_fault("x") for _ in range(policy.MACHINE_FAULTS_MAX - 1)]
    faults.clear("a")
    again = [faults.add_machine_fault("x") for _ in range(policy.MACHINE_FAULTS_MAX - 1)]

    assert below == again == [None] * (policy.MACHINE_FAULTS_MAX - 1)
    assert isinstance(faults.add_machine_fault("the last"), MachineError)


def test_failed_starts_stop_a_run_only_before_a_worker_was_ready() -> None:
    faults = FaultCounts()
    early = [faults.add_start_fault("x", was_ready=False) for _ in range(policy.START_FAULTS_MAX)]

    assert early[:-1] == [None] * (policy.START_FAULTS_MAX - 1)
    assert isinstance(early[-1], MachineError)
    assert faults.add_start_fault("x", was_ready=True) is None


def test_a_model_is_given_up_after_failed_loads_in_a_row_of_its_own() -> None:
    faults = FaultCounts()

    assert [faults.add_load_fault(model, "x") for model in ("a", "b")] == [None, None]
    assert isinstance(faults.add_load_fault("a", "x"), ModelLoadFailed)
    faults.clear("b")
    assert faults.is_loadable("b")
    assert not faults.is_loadable("a")
    assert faults.add_load_fault("b", "x") is None


def test_requests_that_were_in_the_model_run_singly_and_the_others_together() -> None:
    parts = suspects_of(_unit("a", "b", "c", "d"), frozenset({"b", "c"}), bisected, 2)

    assert _ids(parts) == [("b",), ("c",), ("a", "d")]


def test_suspects_that_fail_again_are_halved_when_nobody_knows_which_were_in_the_model() -> None:
    unit = _unit("a", "b", "c", "d", solo=True)

    assert _ids(suspects_of(unit, frozenset(), bisected, 2)) == [("a", "b"), ("c", "d")]
    assert _ids(suspects_of(replace(unit, solo=False), frozenset(), bisected, 2)) == [("a", "b", "c", "d")]


def test_a_request_alone_is_to_blame_once_it_failed_so_often() -> None:
    first, second = _unit("a", solo=True), _unit("a", solo=True, attempt=1)

    assert _ids(suspects_of(first, frozenset(), bisected, 2)) == [("a",)]
    assert suspects_of(second, frozenset(), bisected, 2) is None
    assert suspects_of(first, frozenset(), bisected, 1) is None
