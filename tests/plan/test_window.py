"""Which requests are handed out together, and in which order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdbatch.families import FAMILIES
from sdbatch.plan.window import AUTO_BATCH_MAX, BATCHES_PER_UNIT_MAX, STALE_FACTOR, Window, auto_batch_size, bisected
from sdbatch.types import PendingWork, Request, Unit

PLENTY = 1e9


def _request(
    number: int, *, key: str = "k", model: str = "tiny", cost: float = 1.0, outputs: int = 1, size: int = 64
) -> Request:
    return Request(
        id=f"row-{number}",
        request_key=f"{number:064d}",
        recipe=json.dumps({"task": "text-to-image", "height": size, "width": size, "num_inference_steps": 1}),
        outputs=tuple(range(outputs)),
        sources=(),
        model=model,
        batch_key=key,
        cost_tflop=cost,
    )


def _requests(count: int, first: int = 0, *, key: str = "k", cost: float = 1.0, model: str = "tiny") -> list[Request]:
    return [_request(first + number, key=key, cost=cost, model=model) for number in range(count)]


def _window(*groups: list[Request], batch_size: int | Literal["auto"] = 4) -> Window:
    models = {request.model for group in groups for request in group} | {"tiny"}
    window = Window(dict.fromkeys(models, batch_size))
    for group in groups:
        for request in group:
            window.add(request)
    return window


def _drained(window: Window, cost_max_tflop: float = PLENTY) -> Iterator[Unit]:
    while backlog := window.backlog():
        yield window.take(min(backlog), cost_max_tflop)


def _unit(requests: list[Request]) -> Unit:
    cost = sum(request.cost_tflop for request in requests)
    return Unit(id="0", model="tiny", requests=tuple(requests), batch_size=4, cost_tflop=cost, solo=True)


# --- units ----------------------------------------------------------------------------------------------------------


def test_a_unit_holds_requests_of_one_batch_key_in_order_of_arrival() -> None:
    window = _window([_request(number, key="ab"[number % 2]) for number in range(12)])
    units = list(_drained(window))
    assert [[int(request.id[4:]) for request in unit.requests] for unit in units] == [
        [0, 2, 4, 6, 8, 10],
        [1, 3, 5, 7, 9, 11],
    ]


def test_a_unit_adds_up_what_it_holds() -> None:
    window = _window([_request(0, cost=2.5, outputs=2), _request(1, cost=2.5)])
    unit = window.take("tiny", PLENTY)
    assert (unit.model, unit.batch_size, unit.num_outputs, unit.cost_tflop, unit.solo) == ("tiny", 4, 3, 7.5, False)


@pytest.mark.parametrize(
    ("cost_max", "outputs"),
    [(0.0, 4), (3.9, 4), (4.0, 4), (7.9, 4), (8.0, 8), (15.0, 12), (127.0, 124), (PLENTY, 4 * BATCHES_PER_UNIT_MAX)],
)
def test_a_unit_is_whole_batches_under_its_cost_and_at_least_one(cost_max: float, outputs: int) -> None:
    window = _window(_requests(500))
    assert window.take("tiny", cost_max).num_outputs == outputs


def test_the_last_unit_of_a_group_takes_what_is_left() -> None:
    assert [unit.num_outputs for unit in _drained(_window(_requests(10)), 4.0)] == [4, 4, 2]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_a_unit_never_holds_more_than_its_batches(batch_size: int) -> None:
    window = _window(_requests(BATCHES_PER_UNIT_MAX * batch_size + 1), batch_size=batch_size)
    assert [unit.num_outputs for unit in _drained(window)] == [BATCHES_PER_UNIT_MAX * batch_size, 1]


def test_a_request_s_outputs_stay_together() -> None:
    window = _window([_request(number, outputs=3) for number in range(4)])
    assert [unit.num_outputs for unit in _drained(window, 8.0)] == [6, 6]


def test_unit_ids_count_and_sort_as_text() -> None:
    window = _window(_requests(12))
    window.add_solo(_requests(1, 12), batch_size=4)
    ids = [window.take_solo().id, *(unit.id for unit in _drained(window, 1.0))]
    assert ids == ["000000", "000001", "000002", "000003"]


# --- order ----------------------------------------------------------------------------------------------------------


def test_the_costliest_rows_go_first() -> None:
    window = _window(
        _requests(8, key="cheap"), _requests(8, 8, key="dear", cost=20.0), _requests(8, 16, key="mid", cost=5)
    )
    assert [unit.requests[0].batch_key for unit in _drained(window)] == ["dear", "mid", "cheap"]


def test_full_batches_go_before_partial_ones_however_costly() -> None:
    window = _window(_requests(3, key="dear", cost=20.0), _requests(4, 3, key="cheap"))
    assert [unit.requests[0].batch_key for unit in _drained(window)] == ["cheap", "dear"]


def test_once_no_company_is_to_come_the_costliest_go_first_full_or_not() -> None:
    window = _window(_requests(3, key="dear", cost=20.0), _requests(8, 3, key="cheap"))
    window.end()
    assert [unit.requests[0].batch_key for unit in _drained(window, 4.0)] == ["dear", "cheap", "cheap"]


def test_what_is_given_back_after_the_end_waits_for_no_company() -> None:
    window = _window([])
    window.end()
    for request in [*_requests(8, key="cheap"), *_requests(1, 8, key="dear", cost=20.0)]:
        window.add(request)
    assert window.take("tiny", PLENTY).requests[0].batch_key == "dear"


def test_a_partial_batch_that_found_company_is_a_full_one() -> None:
    window = _window(_requests(3, key="dear", cost=20.0), _requests(4, 3, key="cheap"))
    window.add(_request(7, key="dear", cost=20.0))
    assert window.take("tiny", PLENTY).requests[0].batch_key == "dear"


def test_the_oldest_of_equals_goes_first() -> None:
    window = _window(_requests(4, key="z"), _requests(4, 4, key="a"))
    assert [unit.requests[0].batch_key for unit in _drained(window)] == ["z", "a"]


def test_a_model_s_units_are_its_own() -> None:
    window = _window(_requests(4, cost=20.0, key="a", model="large"), _requests(4, 4, key="b"))
    assert window.take("tiny", PLENTY).requests[0].model == "tiny"
    assert set(window.backlog()) == {"large"}


# --- backlog --------------------------------------------------------------------------------------------------------


def test_the_backlog_adds_up_each_model() -> None:
    window = _window(
        [_request(0, model="large", key="a", cost=10.0)],
        [_request(1, key="b", cost=2.0, outputs=3), _request(2, key="c", cost=1.0)],
    )
    assert window.backlog() == {
        "large": PendingWork(cost_tflop=10.0, outputs=1, oldest=0),
        "tiny": PendingWork(cost_tflop=7.0, outputs=4, oldest=1),
    }


def test_the_oldest_of_a_backlog_moves_on_with_what_is_taken() -> None:
    window = _window(_requests(8))
    window.take("tiny", 4.0)
    assert window.backlog()["tiny"] == PendingWork(cost_tflop=4.0, outputs=4, oldest=4)


def test_an_empty_window_has_no_backlog() -> None:
    window = _window(_requests(4))
    window.take("tiny", PLENTY)
    assert (window.backlog(), window.num_requests) == ({}, 0)


KEYS = {"a": ("tiny", 1.0), "b": ("tiny", 0.3), "c": ("large", 7.0), "d": ("large", 1e-6)}
BATCH_SIZES: dict[str, int | Literal["auto"]] = {"tiny": 4, "large": 3}
ADDS = st.tuples(st.sampled_from(sorted(KEYS)), st.integers(1, 5))
TAKES = st.tuples(st.integers(0, 7), st.sampled_from([0.0, 1.0, 6.5, 50.0, PLENTY]))


@given(st.lists(st.one_of(ADDS, TAKES), max_size=60))
def test_nothing_is_lost_or_doubled_and_every_unit_keeps_its_bounds(
    steps: list[tuple[str, int] | tuple[int, float]],
) -> None:
    window = Window(BATCH_SIZES)
    added: list[Request] = []
    taken: list[Request] = []

    def take(which: int, cost_max: float) -> None:
        models = sorted(window.backlog())
        if not models:
            return
        unit = window.take(models[which % len(models)], cost_max)
        _check_unit(unit, cost_max)
        taken.extend(unit.requests)
        assert window.num_requests == len(added) - len(taken)

    for first, second in steps:
        if isinstance(first, str):
            model, cost = KEYS[first]
            added.append(_request(len(added), key=first, model=model, cost=cost, outputs=int(second)))
            window.add(added[-1])
        else:
            take(first, second)
    while window.num_requests:
        take(0, 6.5)
    assert window.backlog() == {}
    assert sorted(taken, key=lambda request: request.request_key) == added
    for key in KEYS:
        assert [request for request in taken if request.batch_key == key] == [r for r in added if r.batch_key == key]


@given(st.lists(st.one_of(st.tuples(st.integers(0, 11), st.integers(1, 5)), st.none()), max_size=120))
def test_the_window_hands_out_what_one_that_looks_at_every_group_does(steps: list[tuple[int, int] | None]) -> None:
    window = Window({"tiny": 4})
    waiting: dict[str, list[tuple[int, Request]]] = {}

    def outputs(key: str) -> int:
        return sum(len(request.outputs) for _, request in waiting[key])

    def plain_rank(key: str) -> tuple[bool, float, int]:
        return outputs(key) >= 4, waiting[key][0][1].cost_tflop, -waiting[key][0][0]

    for number, step in enumerate(steps):
        if step is not None:
            key, count = f"{step[0]}", step[1]
            request = _request(number, key=key, cost=float(1 + step[0] % 3), outputs=count)
            waiting.setdefault(key, []).append((number, request))
            window.add(request)
        elif waiting:
            key = max(waiting, key=plain_rank)
            unit = window.take("tiny", 10.0)
            ids = [request.id for _, request in waiting[key]]
            assert [request.id for request in unit.requests] == ids[: len(unit.requests)]
            del waiting[key][: len(unit.requests)]
            waiting = {key: left for key, left in waiting.items() if left}
        members = [entry for left in waiting.values() for entry in left]
        backlog = window.backlog()
        assert bool(backlog) == bool(members)
        for found in backlog.values():
            assert found.cost_tflop == sum(request.cost_tflop * len(request.outputs) for _, request in members)
            assert found.outputs == sum(len(request.outputs) for _, request in members)
            # Arrivals are numbered otherwise here, in the same order.
            assert _arrived(window, found.oldest) == min(members, key=lambda entry: entry[0])[1].id


def _arrived(window: Window, arrival: int) -> str:
    """Return the id of the request that a window gave an arrival number."""
    groups = window._queues["tiny"].groups.values()
    return next(request.id for group in groups for number, request in group.requests if number == arrival)


def test_a_window_of_many_groups_forgets_what_is_no_longer_true() -> None:
    window = Window({"tiny": 4})
    for number in range(4000):
        window.add(_request(number, key=f"{number % 50}"))
        if number % 3 == 0:
            window.take("tiny", 4.0)
    queue = window._queues["tiny"]

    assert len(queue._ranked) + len(queue._aged) <= STALE_FACTOR * 51 + 2


def _check_unit(unit: Unit, cost_max: float) -> None:
    assert {(request.model, request.batch_key) for request in unit.requests} == {
        (unit.model, unit.requests[0].batch_key)
    }
    assert unit.batch_size == BATCH_SIZES[unit.model]
    assert unit.cost_tflop == pytest.approx(sum(r.cost_tflop * len(r.outputs) for r in unit.requests))
    if len(unit.requests) > 1:  # one request alone is never split, whatever it costs
        assert unit.num_outputs <= BATCHES_PER_UNIT_MAX * unit.batch_size
        assert unit.num_outputs <= unit.batch_size or unit.cost_tflop <= cost_max * (1 + 1e-9)


# --- suspects -------------------------------------------------------------------------------------------------------


def test_suspects_are_kept_apart_and_come_oldest_first() -> None:
    window = _window(_requests(4))
    window.add_solo(_requests(3, 4), batch_size=4)
    window.add_solo(_requests(1, 7), batch_size=4)
    assert window.has_solo()
    assert (window.num_requests, window.backlog()["tiny"].outputs) == (8, 4)
    peeked = window.peek_solo()
    assert peeked.solo
    assert window.take_solo() == peeked
    assert [request.id for request in peeked.requests] == ["row-4", "row-5", "row-6"]
    assert [request.id for request in window.take_solo().requests] == ["row-7"]
    assert not window.has_solo()
    assert window.num_requests == 4


@pytest.mark.parametrize("count", [2, 3, 7, 128])
def test_suspects_are_halved(count: int) -> None:
    requests = _requests(count)
    one, two = bisected(_unit(requests))
    assert [*one, *two] == requests
    assert 0 <= len(two) - len(one) <= 1


def test_a_lone_suspect_goes_once_more_with_its_try_counted() -> None:
    ((again,),) = bisected(_unit(_requests(1)))
    assert (again.id, again.attempt) == ("row-0", 1)
    (((twice,),)) = bisected(_unit([again]))
    assert twice.attempt == 2


def test_halving_ends_with_every_request_alone() -> None:
    waiting, alone = [_requests(37)], []
    while waiting:
        requests = waiting.pop()
        if len(requests) == 1:
            alone.extend(requests)
        else:
            waiting.extend(list(half) for half in bisected(_unit(requests)))
    assert sorted(request.id for request in alone) == sorted(request.id for request in _requests(37))


# --- batch size -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "num_frames", "batch_size"),
    [
        (64, 64, 1, AUTO_BATCH_MAX),
        (512, 512, 1, AUTO_BATCH_MAX),
        (512, 520, 1, 15),
        (1024, 1024, 1, 4),
        (2048, 2048, 1, 1),
        (8192, 8192, 1, 1),
        (480, 832, 81, 1),
        (64, 64, 17, AUTO_BATCH_MAX),
    ],
)
def test_the_batch_size_tried_first_falls_with_the_pixels(
    height: int, width: int, num_frames: int, batch_size: int
) -> None:
    assert auto_batch_size(height, width, num_frames) == batch_size


@given(st.integers(8, 8192), st.integers(8, 8192), st.integers(1, 1000))
def test_the_batch_size_tried_first_keeps_its_bounds(height: int, width: int, num_frames: int) -> None:
    assert 1 <= auto_batch_size(height, width, num_frames) <= AUTO_BATCH_MAX


@pytest.mark.parametrize(("size", "batch_size"), [(64, AUTO_BATCH_MAX), (1024, 4)])
def test_auto_reads_the_size_of_each_group(size: int, batch_size: int) -> None:
    window = _window([_request(0, size=size)], batch_size="auto")
    assert window.take("tiny", PLENTY).batch_size == batch_size


@pytest.mark.parametrize("chosen", [8, "auto"])
def test_rows_that_no_call_can_share_go_one_by_one(chosen: int | Literal["auto"]) -> None:
    recipe = '{"height":64,"images":["sha256:aa"],"num_inference_steps":2,"task":"image-to-image","width":64}'
    sizes = []
    for title in ("Qwen-Image-Edit", "Stable Diffusion XL"):
        window = Window({"tiny": chosen}, {"tiny": FAMILIES[title]})
        window.add(_request(0)._replace(recipe=recipe))
        sizes.append(window.take("tiny", PLENTY).batch_size)

    assert sizes == [1, AUTO_BATCH_MAX if chosen == "auto" else chosen]


def test_the_batch_size_of_a_recipe_counts_before_the_models() -> None:
    window = Window({"tiny": 4})
    exact = _requests(1)[0]._replace(
        recipe=json.dumps(
            {"task": "text-to-image", "height": 64, "width": 64, "num_inference_steps": 1, "batch_size": 1}
        )
    )
    window.add(exact)

    assert window.take("tiny", PLENTY).batch_size == 1
