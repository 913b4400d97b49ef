"""The table of outcomes: every end has a row, and nothing unforeseen is passed over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sdbatch.dispatch.dispatcher import Dispatcher
from sdbatch.errors import ROW_FAILURES, MachineError, WorkersUnavailable, WorkersUnlike
from sdbatch.outcomes import DEADLINE_FACTOR, OUTCOMES, Outcome, call_deadline_s, outcome_of

IN_A_CALL = {"RowError", "Raised", "OutOfMemory", "DeadlineExceeded"}
OF_A_PROCESS = {"Died", "Overdue", "Silent", "Undecoded", "Stuck", "Unavailable", "NodeLost", "Preempted"}
AROUND = {"StoreRefused", "Bug"}


def _kinds(root: type[MachineError]) -> Iterator[str]:
    for kind in root.__subclasses__():
        yield kind.__name__
        yield from _kinds(kind)


def test_every_end_of_a_unit_has_a_row_and_no_row_is_idle() -> None:
    told_by_the_driver = {WorkersUnavailable.__name__, WorkersUnlike.__name__}
    told_by_workers = {*_kinds(MachineError)} - told_by_the_driver

    assert OUTCOMES.keys() == told_by_workers | IN_A_CALL | OF_A_PROCESS | AROUND


@pytest.mark.parametrize("kind", ["Bug", "KeyError", "SourceMissing", "", "RuntimeError"])
def test_what_nobody_foresaw_is_a_bug_and_stops_the_run(kind: str) -> None:
    assert outcome_of(kind) == Outcome(then="stop")


@pytest.mark.parametrize("kind", ["Preempted", "Unavailable", "NodeLost", "Stuck", "StoreUnavailable"])
def test_what_the_surroundings_did_blames_no_row(kind: str) -> None:
    assert outcome_of(kind).then == "again"
    assert outcome_of(kind).records is None


@pytest.mark.parametrize("kind", ["Died", "DeviceLost", "Overdue", "Silent", "Undecoded"])
def test_a_process_that_ended_is_replaced_and_its_rows_are_suspects(kind: str) -> None:
    assert outcome_of(kind).then == "bisect"
    assert outcome_of(kind).replace_worker
    assert outcome_of(kind).solo_failures_max >= 1


def test_only_rows_and_suspects_are_recorded_and_by_a_class_of_failure() -> None:
    for kind, outcome in OUTCOMES.items():
        assert (outcome.records is not None) == (outcome.then in {"alone", "halve", "bisect"}), kind
        assert outcome.records in {None, "", *ROW_FAILURES}, kind


def test_every_end_has_a_handler_in_the_worker_or_in_the_dispatcher() -> None:
    by_the_worker = {kind for kind, outcome in OUTCOMES.items() if outcome.then in {"alone", "halve"}}
    handled = Dispatcher.FAULT_HANDLERS.keys() | Dispatcher.LOSS_HANDLERS.keys()

    assert by_the_worker == IN_A_CALL
    assert {OUTCOMES[kind].then for kind in OUTCOMES.keys() - by_the_worker} == handled


def test_a_call_may_take_ten_times_what_was_predicted_and_never_less_than_the_least() -> None:
    assert call_deadline_s(40.0, 2.0, 60.0, 600.0) == DEADLINE_FACTOR * 20.0
    assert call_deadline_s(1.0, 2.0, 60.0, 600.0) == 60.0


def test_a_call_of_which_nothing_is_known_has_the_time_of_a_start() -> None:
    assert call_deadline_s(1.0, None, 60.0, 600.0) == 600.0
    assert call_deadline_s(1.0, None, 60.0, 30.0) == 60.0
