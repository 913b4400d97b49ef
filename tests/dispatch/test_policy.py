"""Who gets what next, how much of it, and what a fault means."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdbatch.dispatch.policy import (
    IN_FLIGHT_MAX,
    OUTCOMES,
    UNIT_S,
    Outcome,
    WorkerView,
    choose,
    choose_solo,
    outcome_of,
    unit_cost_max,
)
from sdbatch.errors import MachineError, WorkersUnavailable
from sdbatch.types import Backlog

MODELS = ("a", "b", "c")


def _worker(
    name: str, model: str | None = None, in_flight: int = 0, *, models: str = "abc", solo: bool = False
) -> WorkerView:
    return WorkerView(id=name, models=frozenset(models), model=model, in_flight=in_flight, solo=solo)


def _backlog(**costs: float) -> dict[str, Backlog]:
    """Return a backlog by cost; the first named is the oldest."""
    return {
        name: Backlog(cost_tflop=cost, outputs=1, oldest=oldest) for oldest, (name, cost) in enumerate(costs.items())
    }


# --- which worker, which model --------------------------------------------------------------------------------------


def test_a_warm_worker_keeps_its_model() -> None:
    assert choose([_worker("w0", "a")], _backlog(b=100.0, a=1.0)) == ("w0", "a")


def test_a_worker_whose_model_has_no_work_left_takes_the_largest_backlog() -> None:
    assert choose([_worker("w0", "c")], _backlog(a=1.0, b=100.0)) == ("w0", "b")


def test_a_cold_worker_takes_the_largest_backlog() -> None:
    assert choose([_worker("w0")], _backlog(a=1.0, b=100.0)) == ("w0", "b")


def test_the_older_of_two_equal_backlogs_goes_first() -> None:
    assert choose([_worker("w0")], _backlog(b=5.0, a=5.0)) == ("w0", "b")


def test_the_emptiest_worker_goes_first_even_when_it_is_cold() -> None:
    workers = [_worker("w0", "a", 1), _worker("w1", None, 0)]
    assert choose(workers, _backlog(a=5.0)) == ("w1", "a")


def test_a_warm_worker_goes_before_a_cold_one_as_empty() -> None:
    assert choose([_worker("w0", "b"), _worker("w1", "a")], _backlog(a=5.0)) == ("w1", "a")


def test_the_backlog_is_weighed_by_the_workers_that_serve_it() -> None:
    workers = [_worker("w0"), _worker("w1", "a", 2), _worker("w2", "a", 2)]
    assert choose(workers, _backlog(a=100.0, b=40.0)) == ("w0", "b")
    assert choose(workers, _backlog(a=100.0, b=30.0)) == ("w0", "a")


def test_a_starving_model_goes_before_a_warm_one() -> None:
    workers, backlog = [_worker("w0", "a")], _backlog(a=100.0, b=1.0)
    assert choose(workers, backlog) == ("w0", "a")
    assert choose(workers, backlog, frozenset("b")) == ("w0", "b")


def test_the_oldest_of_the_starving_goes_first() -> None:
    assert choose([_worker("w0", "a")], _backlog(a=100.0, c=1.0, b=9.0), frozenset("bc")) == ("w0", "c")


def test_a_starving_model_without_work_is_passed_over() -> None:
    assert choose([_worker("w0", "a")], _backlog(a=1.0), frozenset("b")) == ("w0", "a")


def test_a_worker_gets_only_models_of_its_shape() -> None:
    small = _worker("w0", models="a")
    assert choose([small], _backlog(b=100.0, a=1.0), frozenset("b")) == ("w0", "a")
    assert choose([small], _backlog(b=100.0)) is None
    assert choose([small, _worker("w1", models="bc")], _backlog(b=100.0)) == ("w1", "b")


@pytest.mark.parametrize(("in_flight", "is_chosen"), [(0, True), (IN_FLIGHT_MAX - 1, True), (IN_FLIGHT_MAX, False)])
def test_a_worker_holds_no_more_units_than_the_bound(in_flight: int, is_chosen: bool) -> None:
    assert (choose([_worker("w0", "a", in_flight)], _backlog(a=5.0)) is not None) == is_chosen


def test_a_worker_with_suspects_gets_nothing_beside_them() -> None:
    suspect = _worker("w0", "a", 1, solo=True)
    assert choose([suspect], _backlog(a=5.0)) is None
    assert choose([suspect, _worker("w1", "b", 1)], _backlog(a=5.0)) == ("w1", "a")


def test_nobody_is_chosen_without_workers_or_work() -> None:
    assert choose([], _backlog(a=5.0)) is None
    assert choose([_worker("w0", "a")], {}) is None


WORKERS = st.frozensets(st.sampled_from(MODELS), min_size=1).flatmap(
    lambda models: st.builds(
        WorkerView,
        id=st.integers().map(str),
        models=st.just(models),
        model=st.sampled_from([None, *sorted(models)]),
        in_flight=st.integers(0, IN_FLIGHT_MAX),
        solo=st.booleans(),
    )
)
BACKLOGS = st.dictionaries(
    st.sampled_from(MODELS),
    st.builds(Backlog, cost_tflop=st.floats(1e-3, 1e6), outputs=st.integers(1, 9), oldest=st.integers(0, 99)),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(WORKERS, max_size=6, unique_by=lambda worker: worker.id), BACKLOGS, st.frozensets(st.sampled_from(MODELS))
)
def test_somebody_is_chosen_exactly_when_somebody_can_work(
    workers: list[WorkerView], backlog: dict[str, Backlog], starving: frozenset[str]
) -> None:
    able = {
        (worker.id, model)
        for worker in workers
        if worker.in_flight < IN_FLIGHT_MAX and not worker.solo
        for model in worker.models & backlog.keys()
    }
    choice = choose(workers, backlog, starving)
    assert (choice in able) if able else choice is None
    assert choose(list(reversed(workers)), backlog, starving) == choice


# --- suspects -------------------------------------------------------------------------------------------------------


def test_suspects_go_to_an_idle_worker_that_holds_their_model() -> None:
    workers = [_worker("w0", "b"), _worker("w1", "a"), _worker("w2", "a", 1)]
    assert choose_solo(workers, "a") == "w1"


def test_suspects_go_to_a_cold_worker_rather_than_wait() -> None:
    assert choose_solo([_worker("w0", "a", 1), _worker("w1", "b")], "a") == "w1"


def test_suspects_wait_while_every_worker_is_busy() -> None:
    assert choose_solo([_worker("w0", "a", 1), _worker("w1", "a", 1, solo=True)], "a") is None


def test_suspects_go_only_to_a_worker_of_their_shape() -> None:
    assert choose_solo([_worker("w0", models="b")], "a") is None


# --- the size of a unit ---------------------------------------------------------------------------------------------


def test_a_unit_costs_nothing_before_the_first_receipt() -> None:
    assert unit_cost_max(1e9, 4, None) == 0.0


def test_a_unit_is_some_seconds_of_work_while_there_is_plenty() -> None:
    assert unit_cost_max(1e9, 4, 3.0) == UNIT_S * 3.0


def test_a_unit_shrinks_toward_the_end() -> None:
    left, caps = 1000.0, []
    while left > 1:
        caps.append(unit_cost_max(left, 4, 3.0))
        left -= caps[-1]
    assert caps == sorted(caps, reverse=True)
    assert caps[0] == UNIT_S * 3.0
    assert caps[-1] < 0.1
    assert unit_cost_max(0.0, 4, 3.0) == 0.0


def test_more_workers_share_what_is_left() -> None:
    assert unit_cost_max(80.0, 8, 100.0) == unit_cost_max(80.0, 4, 100.0) / 2 == 2.5


def test_a_run_whose_workers_are_gone_has_a_unit_size_still() -> None:
    assert unit_cost_max(8.0, 0, 100.0) == 2.0


# --- outcomes -------------------------------------------------------------------------------------------------------


def _kinds(root: type[MachineError]) -> Iterator[str]:
    for kind in root.__subclasses__():
        yield kind.__name__
        yield from _kinds(kind)


def test_every_fault_that_a_worker_or_an_executor_reports_has_an_outcome() -> None:
    of_the_driver = {WorkersUnavailable.__name__}
    of_executors = {"Died", "Preempted", "Unavailable"}
    assert OUTCOMES.keys() == {*_kinds(MachineError), "StoreRefused", "Bug"} - of_the_driver | of_executors


@pytest.mark.parametrize("kind", ["Bug", "KeyError", "SourceMissing", "", "RuntimeError"])
def test_what_nobody_foresaw_is_a_bug_and_stops_the_run(kind: str) -> None:
    assert outcome_of(kind) == Outcome(blame="run", replace_worker=False)


@pytest.mark.parametrize("kind", ["Preempted", "Unavailable"])
def test_a_lost_node_blames_nobody_and_its_worker_is_replaced(kind: str) -> None:
    assert outcome_of(kind) == Outcome(blame="nobody", replace_worker=True)


def test_a_process_that_died_makes_its_units_suspect() -> None:
    assert outcome_of("Died") == Outcome(blame="suspects", replace_worker=True)


def test_a_load_that_failed_is_the_model_s_fault() -> None:
    assert outcome_of("ModelLoadFailed") == Outcome(blame="model", replace_worker=False)


def test_a_store_that_did_not_answer_is_tried_again() -> None:
    assert outcome_of("StoreUnavailable") == Outcome(blame="nobody", replace_worker=False)


@pytest.mark.parametrize("kind", ["LeaseLost", "StoreRefused"])
def test_a_campaign_that_cannot_be_written_stops_the_run(kind: str) -> None:
    assert outcome_of(kind).blame == "run"
