"""The slate of a row, for every small row and in general."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from sdbatch.slate import lineage, num_given_up, shown, slate

NUMBERS = st.integers(0, 30)
SETS = st.frozensets(NUMBERS)
COUNTS = st.integers(1, 6)


@given(COUNTS, SETS, st.integers(0, 4))
def test_a_slate_is_the_first_wanted_numbers_below_the_bound(
    num_outputs: int, excluded: frozenset[int], rerolls: int
) -> None:
    found = slate(num_outputs, excluded, rerolls)
    bound = num_outputs * (1 + rerolls)
    free = [n for n in range(bound) if n not in excluded]

    assert list(found) == free[:num_outputs]
    assert num_given_up(num_outputs, excluded, rerolls) == max(0, num_outputs - len(free))


@given(COUNTS, SETS, st.integers(0, 4))
def test_a_further_decision_takes_nothing_else_out_of_a_slate(
    num_outputs: int, excluded: frozenset[int], rerolls: int
) -> None:
    before = slate(num_outputs, excluded, rerolls)

    for n in range(30):
        after = slate(num_outputs, excluded | {n}, rerolls)
        assert set(before) - set(after) <= {n}
        assert len(set(after) - set(before)) <= 1


@st.composite
def _stories(draw: st.DrawFn) -> tuple[int, frozenset[int], frozenset[int], frozenset[int]]:
    """Draw what becomes of a row in rounds: all of the slate is made, then some of it is rejected."""
    num_outputs = draw(COUNTS)
    made: set[int] = set()
    excluded: set[int] = set()
    replaced: set[int] = set()
    for _ in range(draw(st.integers(0, 4))):
        wanted = slate(num_outputs, excluded)
        fresh = [n for n in wanted if n not in made]
        fresh = fresh if draw(st.booleans()) else [n for n in fresh if n < num_outputs]  # with --reroll, and without
        replaced |= set(lineage([n for n in fresh if n >= num_outputs], excluded, replaced).values())
        made |= set(fresh)
        excluded |= draw(st.frozensets(st.sampled_from(sorted(made)))) if made else set()
    return num_outputs, frozenset(excluded), frozenset(made), frozenset(replaced)


@given(_stories())
def test_a_row_shows_as_many_outputs_as_it_asks_for_and_never_one_that_was_replaced(
    story: tuple[int, frozenset[int], frozenset[int], frozenset[int]],
) -> None:
    num_outputs, excluded, made, replaced = story
    seen = shown(num_outputs, excluded, made, (), replaced)

    if set(range(num_outputs)) <= made:
        assert len(seen) == num_outputs
    assert set(slate(num_outputs, excluded)) & made <= set(seen)
    assert not set(seen) & replaced
    assert set(seen) <= made


@given(_stories())
def test_each_new_output_replaces_one_excluded_before_it_and_no_two_the_same(
    story: tuple[int, frozenset[int], frozenset[int], frozenset[int]],
) -> None:
    num_outputs, excluded, made, replaced = story
    fresh = [n for n in slate(num_outputs, excluded) if n >= num_outputs and n not in made]
    found = lineage(fresh, excluded, replaced)

    assert list(found) == fresh
    assert len(set(found.values())) == len(found)
    assert all(place < n and place in excluded and place not in replaced for n, place in found.items())


def test_what_was_rejected_last_waits_and_not_what_has_its_replacement() -> None:
    # 1 was rejected and 2 made for it; now 0 is rejected too.
    assert slate(2, {0, 1}) == (2, 3)
    assert shown(2, {0, 1}, {0, 1, 2}, (), {1}) == (0, 2)
    assert lineage([3], {0, 1}, {1}) == {3: 0}


def test_a_replacement_that_failed_stands_beside_what_it_should_replace() -> None:
    assert shown(1, {0}, {0}, {1}, ()) == (0, 1)


def test_numbers_that_a_larger_row_left_take_a_rejected_ones_place_at_once() -> None:
    assert shown(1, {0}, {0, 1, 2, 3}, (), ()) == (1,)
