"""Who gets what next, how much of it, and when a worker is given up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdbatch.dispatch.policy import (
    ABORT_GRACE_S,
    BATCH_FACTOR,
    IN_FLIGHT_MAX,
    UNIT_S,
    Roster,
    WorkerView,
    may_risk,
    overdue,
    suspects,
    unit_cost_max,
)
from sdbatch.outcomes import OUTCOMES
from sdbatch.types import PendingWork, Phase, Request, Running, Unit

MODELS = ("a", "b", "c")


def _worker(
    name: str, model: str | None = None, in_flight: int = 0, *, models: str = "abc", solo: bool = False
) -> WorkerView:
    return WorkerView(id=name, models=frozenset(models), model=model, in_flight=in_flight, solo=solo)


def _backlog(**costs: float) -> dict[str, PendingWork]:
    """Return a backlog by cost; the first named is the oldest."""
    return {
        name: PendingWork(cost_tflop=cost, outputs=1, oldest=oldest)
        for oldest, (name, cost) in enumerate(costs.items())
    }


def _roster(workers: Sequence[WorkerView]) -> Roster:
    roster = Roster()
    for worker in workers:
        roster.put(worker)
    return roster


def choose(
    workers: Sequence[WorkerView], backlog: Mapping[str, PendingWork], starving: frozenset[str] = frozenset()
) -> tuple[str, str] | None:
    return _roster(workers).choose(backlog, starving)


def choose_solo(workers: Sequence[WorkerView], model: str) -> str | None:
    return _roster(workers).choose_solo(model)


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
    st.builds(PendingWork, cost_tflop=st.floats(1e-3, 1e6), outputs=st.integers(1, 9), oldest=st.integers(0, 99)),
)


@given(
    st.lists(WORKERS, max_size=6, unique_by=lambda worker: worker.id), BACKLOGS, st.frozensets(st.sampled_from(MODELS))
)
def test_somebody_is_chosen_exactly_when_somebody_can_work(
    workers: list[WorkerView], backlog: dict[str, PendingWork], starving: frozenset[str]
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


def _plain_choice(
    workers: Sequence[WorkerView], backlog: Mapping[str, PendingWork], starving: frozenset[str], hold_idle: bool
) -> tuple[str, str] | None:
    """Say the rules in the plainest words: every worker is looked at for every choice."""
    if hold_idle and workers:
        held = min(workers, key=lambda w: (w.solo, w.in_flight, w.id))
        workers = [worker for worker in workers if worker is not held]
    free = [w for w in workers if w.in_flight < IN_FLIGHT_MAX and not w.solo and w.models & backlog.keys()]
    if not free:
        return None
    worker = min(free, key=lambda w: (w.in_flight, w.model not in backlog, w.id))
    hungry = sorted(starving & worker.models & backlog.keys(), key=lambda name: (backlog[name].oldest, name))
    if hungry:
        return worker.id, hungry[0]
    if worker.model is not None and worker.model in backlog:
        return worker.id, worker.model
    serving = {name: sum(w.model == name for w in workers) for name in backlog}
    candidates = [name for name in backlog if name in worker.models]
    best = max(candidates, key=lambda name: (backlog[name].cost_tflop / (1 + serving[name]), -backlog[name].oldest))
    return worker.id, best


ALIKE = st.builds(
    WorkerView,
    id=st.sampled_from(["w1", "w10", "w2", "w3", "w4", "w5"]),
    models=st.sampled_from([frozenset("abc"), frozenset("abc"), frozenset("b")]),
    model=st.sampled_from([None, "b", "a"]),
    in_flight=st.sampled_from([0, IN_FLIGHT_MAX, 1]),
    solo=st.sampled_from([False, False, False, True]),
)
"""Few kinds, so that several workers stand in one line."""
EVEN = st.lists(st.sampled_from([0, 3, 4, 5, 6]), min_size=3, max_size=3).map(
    lambda costs: {
        name: PendingWork(cost_tflop=cost, outputs=1, oldest=0)
        for name, cost in zip(MODELS, costs, strict=True)
        if cost
    }
)
"""Costs near one another, so that the workers that serve a model count."""


@settings(max_examples=200)
@given(
    st.lists(st.tuples(ALIKE, st.sampled_from([True, True, True, False])), max_size=25),
    EVEN,
    st.sampled_from([frozenset[str](), frozenset[str](), frozenset("ac")]),
    st.booleans(),
)
def test_the_roster_chooses_as_one_that_looks_at_every_worker(
    steps: list[tuple[WorkerView, bool]], backlog: dict[str, PendingWork], starving: frozenset[str], hold_idle: bool
) -> None:
    roster, workers = Roster(), dict[str, WorkerView]()
    for view, stays in steps:
        if stays:
            workers[view.id] = view
            roster.put(view)
        else:
            workers.pop(view.id, None)
            roster.remove(view.id)
        views = list(workers.values())
        assert len(roster) == len(views)
        assert roster.choose(backlog, starving, hold_idle=hold_idle) == _plain_choice(
            views, backlog, starving, hold_idle
        )
        for model in MODELS:
            idle = [w for w in views if w.in_flight == 0 and model in w.models]
            plain = min(idle, key=lambda w: (w.model != model, w.id)).id if idle else None
            assert roster.choose_solo(model) == plain


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


@pytest.mark.parametrize(
    ("num_ready", "num_starting", "has_backlog", "may"),
    [(2, 1, True, True), (1, 1, True, False), (1, 0, True, True), (1, 1, False, True), (0, 2, True, False)],
)
def test_suspects_do_not_take_the_last_worker_while_others_start(
    num_ready: int, num_starting: int, has_backlog: bool, may: bool
) -> None:
    assert may_risk(num_ready, num_starting, has_backlog) is may


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


# --- pings and suspects ---------------------------------------------------------------------------------------------


def _running(phase: Phase, elapsed_s: float, bound_s: float) -> Running:
    return Running(unit="000001", phase=phase, elapsed_s=elapsed_s, bound_s=bound_s, ids=("a",))


@pytest.mark.parametrize(
    ("phase", "kind"),
    [("generate", "Overdue"), ("load", "ModelLoadFailed"), ("fetch", "Undecoded"), ("finish", "Stuck")],
)
def test_a_unit_beyond_its_bound_is_told_by_where_it_is(phase: Phase, kind: str) -> None:
    well = _running(phase, 10.0 + ABORT_GRACE_S, 10.0)
    late = _running(phase, 10.1 + ABORT_GRACE_S, 10.0)

    assert overdue([well]) is None
    assert overdue([well, late]) == (kind, late)


@pytest.mark.fault("S6", "a fetch that is overdue while it decodes", "its rows are suspects; none are while it reads")
def test_a_fetch_that_is_overdue_in_decoding_has_suspects() -> None:
    late = _running("fetch", 10.1 + ABORT_GRACE_S, 10.0)
    kinds = [kind for ids in (("a",), ()) for kind, _ in [overdue([replace(late, ids=ids)]) or ("", late)]]

    assert kinds == ["Undecoded", "Stuck"]
    assert OUTCOMES["Undecoded"].then == "bisect"
    assert OUTCOMES["Undecoded"].records == "SourceUnreadable"


def test_a_unit_that_waits_for_the_model_is_never_overdue() -> None:
    assert overdue([_running("wait", 1e9, math.inf)]) is None


def _unit(*ids: str) -> Unit:
    requests = tuple(
        Request(id=name, request_key="", recipe="{}", outputs=(0,), sources=(), model="a", batch_key="", cost_tflop=1.0)
        for name in ids
    )
    return Unit(id="000001", model="a", requests=requests, batch_size=4, cost_tflop=1.0)


def test_what_was_in_the_model_runs_alone_and_the_rest_together() -> None:
    def split(*ids: str) -> list[list[str]]:
        return [[request.id for request in part] for part in suspects(_unit("a", "b", "c", "d"), frozenset(ids))]

    assert split("b", "c") == [["b"], ["c"], ["a", "d"]]
    assert split("a", "b", "c", "d") == [["a"], ["b"], ["c"], ["d"]]
    assert split() == [["a", "b", "c", "d"]]
    assert split("of another unit") == [["a", "b", "c", "d"]]


@pytest.mark.fault(
    "A10", "a batch of 16 rows in units of 12", "a unit holds the batch that a worker wants, within a bound"
)
def test_a_unit_holds_the_batch_that_a_worker_wants() -> None:
    assert unit_cost_max(1e9, 4, 3.0, batch_tflop=1.3 * UNIT_S * 3.0) == pytest.approx(1.3 * UNIT_S * 3.0)
    assert unit_cost_max(1e9, 4, 3.0, batch_tflop=0.5 * UNIT_S * 3.0) == UNIT_S * 3.0
    assert unit_cost_max(1e9, 4, 3.0, batch_tflop=50 * UNIT_S * 3.0) == BATCH_FACTOR * UNIT_S * 3.0
    assert unit_cost_max(80.0, 4, 3.0, batch_tflop=1e9) == 5.0, "toward the end all workers share what is left"
