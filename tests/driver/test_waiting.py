"""What a run says while it has no worker: each cause once, and the end once, however often workers come and die."""

from __future__ import annotations

from collections.abc import Mapping

from sdbatch.dispatch.waits import Wait
from sdbatch.driver.one_run.waiting import WaitingLines

START = {"start cpu": Wait(text="each asks for 1 CPU", count=2)}
LOST = {"lost OutOfMemory": Wait(text="a lost worker is started again; the last fault: memory at 0xbeef", count=1)}
Moment = tuple[float, int, Mapping[str, Wait]]


def _said(moments: list[Moment]) -> list[tuple[float, str]]:
    lines = WaitingLines(0.0)
    said: list[tuple[float, str]] = []
    for now_s, num_workers, causes in moments:
        if line := lines.look(now_s, num_workers, {**causes}.copy):
            said.append((now_s, line))
    return said


def _every(start: int, end: int, num_workers: int, causes: Mapping[str, Wait] = START) -> list[Moment]:
    return [(now / 2, num_workers, causes) for now in range(2 * start, 2 * end)]


def test_a_start_that_takes_no_longer_than_usual_is_not_told() -> None:
    assert _said([*_every(0, 14, 0), *_every(14, 60, 2)]) == []


def test_a_wait_is_told_once_and_so_is_its_end() -> None:
    said = _said([*_every(0, 300, 0), *_every(300, 400, 2)])

    assert said == [
        (15.0, "waiting for a worker: each asks for 1 CPU"),
        (315.0, "the wait for a worker is over after 5 min 00 s: 2 workers are ready"),
    ]


def test_workers_that_come_and_die_within_seconds_are_one_wait() -> None:
    """A squeeze of memory of 90 s: workers start, are killed, and are started again after longer and longer pauses."""
    moments = _every(0, 40, 1)
    for start in range(40, 130, 30):
        again = {"lost OutOfMemory": Wait(text=f"the last fault: memory at {start}", count=1)}
        moments += [
            *_every(start, start + 20, 0, again),
            *_every(start + 20, start + 26, 0),
            *_every(start + 26, start + 30, 1),
        ]
    said = _said([*moments, *_every(130, 200, 1)])

    assert [line.partition(":")[0] for _, line in said] == [
        "waiting for a worker",
        "the wait for a worker is over after 1 min 26 s",
    ]
    assert "memory at 40" in said[0][1]


def test_another_cause_and_a_count_that_grew_are_told() -> None:
    grown = {"lost OutOfMemory": Wait(text="4 lost workers", count=4)}
    nearly = {"lost OutOfMemory": Wait(text="5 lost workers", count=5)}
    said = _said(
        [*_every(0, 40, 0), *_every(40, 80, 0, LOST), *_every(80, 120, 0, grown), *_every(120, 160, 0, nearly)]
    )

    assert [line.partition(": ")[2][:16] for _, line in said] == [
        "each asks for 1 ",
        "a lost worker is",
        "4 lost workers",
    ]


def test_what_is_waited_for_can_be_asked_while_it_lasts() -> None:
    lines = WaitingLines(0.0)
    lines.look(16.0, 0, lambda: {**START, **LOST})
    assert len(lines.causes) == 2
    lines.look(17.0, 1, lambda: START)
    assert not lines.causes
