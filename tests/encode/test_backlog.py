"""What waits for encoding is bounded in bytes."""

from __future__ import annotations

import threading

from sdbatch.encode.backlog import Backlog


def _entering(backlog: Backlog, size_bytes: int) -> threading.Thread:
    thread = threading.Thread(target=backlog.enter, args=(size_bytes,), daemon=True)
    thread.start()
    thread.join(0.2)
    return thread


def test_what_does_not_fit_waits_until_it_does() -> None:
    backlog = Backlog(100)
    backlog.enter(60)
    assert not _entering(backlog, 40).is_alive()
    late = _entering(backlog, 50)
    assert late.is_alive()
    backlog.leave(40)
    late.join(0.2)
    assert late.is_alive()
    backlog.leave(60)
    late.join(5)
    assert not late.is_alive()


def test_what_is_larger_than_the_bound_goes_in_alone() -> None:
    backlog = Backlog(100)
    backlog.enter(1)
    late = _entering(backlog, 1_000)
    assert late.is_alive()
    backlog.leave(1)
    late.join(5)
    assert not late.is_alive()
