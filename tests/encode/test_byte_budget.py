"""What waits for encoding is bounded in bytes."""

from __future__ import annotations

import threading

from sdbatch.encode.byte_budget import ByteBudget


def _entering(budget: ByteBudget, size_bytes: int) -> threading.Thread:
    thread = threading.Thread(target=budget.enter, args=(size_bytes,), daemon=True)
    thread.start()
    thread.join(0.2)
    return thread


def test_what_does_not_fit_waits_until_it_does() -> None:
    budget = ByteBudget(100)
    budget.enter(60)
    assert not _entering(budget, 40).is_alive()
    late = _entering(budget, 50)
    assert late.is_alive()
    budget.leave(40)
    late.join(0.2)
    assert late.is_alive()
    budget.leave(60)
    late.join(5)
    assert not late.is_alive()


def test_what_is_larger_than_the_bound_goes_in_alone() -> None:
    budget = ByteBudget(100)
    budget.enter(1)
    late = _entering(budget, 1_000)
    assert late.is_alive()
    budget.leave(1)
    late.join(5)
    assert not late.is_alive()
