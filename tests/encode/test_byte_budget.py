"""What waits for encoding is bounded in bytes."""

from __future__ import annotations

import threading

from sdbatch.encode.byte_budget import ByteBudget


def _entering(budget: ByteBudget, size_bytes: int) -> threading.Thread:
    thread = threading.Thread(target=budget.enter, args=(size_bytes,), daemon=True)
    thread.start()
    return thread


def _waits(thread: threading.Thread) -> bool:
    thread.join(0.2)
    return thread.is_alive()


def _goes_in(thread: threading.Thread) -> bool:
    thread.join(60)
    return not thread.is_alive()


def test_what_does_not_fit_waits_until_it_does() -> None:
    budget = ByteBudget(100)
    budget.enter(60)
    assert _goes_in(_entering(budget, 40))
    late = _entering(budget, 50)
    assert _waits(late)
    budget.leave(40)
    assert _waits(late)
    budget.leave(60)
    assert _goes_in(late)


def test_what_is_larger_than_the_bound_goes_in_alone() -> None:
    budget = ByteBudget(100)
    budget.enter(1)
    late = _entering(budget, 1_000)
    assert _waits(late)
    budget.leave(1)
    assert _goes_in(late)
