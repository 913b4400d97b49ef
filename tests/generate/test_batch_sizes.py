"""Batch sizes are found by trying, on figures a GPU would give, and remembered by later workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdbatch.generate import batch_sizes
from sdbatch.generate.batch_sizes import BATCH_MAX, BatchSizes, first_size
from sdbatch.generate.item import Memory

GIB = 1 << 30


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDBATCH_CACHE", str(tmp_path))


def _memory(size: int, at_hand: int = 80 * GIB) -> Memory:
    """Return what a call of so many rows takes: 10 GiB of weights, 1 GiB a row."""
    return Memory(before=10 * GIB, peak=(10 + size) * GIB, at_hand=at_hand)


def _run(
    sizes: BatchSizes, seconds: Callable[[int], float], *, calls: int, most: int = BATCH_MAX, fails_from: int = 1000
) -> list[int]:
    """Make calls as a worker does; return their sizes."""
    made = []
    for _ in range(calls):
        size = sizes.choose("shape", 4, most)
        made.append(size)
        if size >= fails_from:
            sizes.failed("shape", size)
        else:
            sizes.ran("shape", size, seconds(size), _memory(size))
    return made


def test_a_batch_is_doubled_while_a_row_gets_cheaper() -> None:
    made = _run(BatchSizes(), lambda size: 1.0 + max(size, 16) * 0.2 + size * 0.1, calls=9)

    assert made == [4, 4, 8, 8, 16, 16, 32, 32, 32]


def test_a_size_that_gains_nothing_is_left_again_and_a_later_worker_knows() -> None:
    made = _run(BatchSizes(), lambda size: 4.0 + size if size <= 8 else size * 1.6, calls=8)

    assert made == [4, 4, 8, 8, 16, 16, 8, 8]
    assert _run(BatchSizes(), lambda size: 4.0 + size, calls=3) == [8] * 3


def test_a_batch_is_not_doubled_beyond_the_memory_at_hand() -> None:
    sizes = BatchSizes()
    for _ in range(4):
        size = sizes.choose("shape", 4, BATCH_MAX)
        sizes.ran("shape", size, 1.0, _memory(size, at_hand=19 * GIB))

    assert sizes.choose("shape", 4, BATCH_MAX) == 4


def test_out_of_memory_goes_back_to_what_fitted_and_tries_no_more() -> None:
    made = _run(BatchSizes(), lambda size: 1.0 + size * 0.01, calls=7, fails_from=16)

    assert made == [4, 4, 8, 8, 16, 8, 8]
    assert _run(BatchSizes(), lambda _: 1.0, calls=4) == [8] * 4


def test_a_first_size_that_does_not_fit_is_halved_until_one_does() -> None:
    assert _run(BatchSizes(), lambda _: 1.0, calls=4, fails_from=2) == [4, 2, 1, 1]


@pytest.mark.fault(
    "A10", "rows of 20 steps, then rows of 50", "the size that does most work a second, whatever rows came"
)
def test_a_size_is_measured_by_its_work_and_not_by_its_rows() -> None:
    sizes = BatchSizes()
    for steps in (20, 20, 50, 50, 20, 50):
        size = sizes.choose("shape", 4, 8)
        seconds = steps * (1.0 + 0.2 * size)  # twice the rows save a third of a row's time
        sizes.ran("shape", size, seconds, _memory(size), cost_tflop=float(steps * size))

    assert sizes.choose("shape", 4, 8) == 8


@pytest.mark.fault("A10", "out of memory once, because of a neighbour", "the size is tried again an hour later")
def test_a_size_that_failed_is_tried_again_after_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000_000.0]
    monkeypatch.setattr(batch_sizes, "time", SimpleNamespace(time=lambda: clock[0]))
    assert _run(BatchSizes(), lambda size: 1.0 + size * 0.01, calls=6, fails_from=16) == [4, 4, 8, 8, 16, 8]

    clock[0] += batch_sizes.FAILED_FOR_S - 1
    assert _run(BatchSizes(), lambda size: 1.0 + size * 0.01, calls=3) == [8, 8, 8]
    clock[0] += 2
    assert _run(BatchSizes(), lambda size: 1.0 + size * 0.01, calls=3) == [8, 8, 16]


def test_the_job_s_own_number_is_never_exceeded() -> None:
    assert set(_run(BatchSizes(), lambda _: 1.0, calls=6, most=4)) == {4}


def test_a_units_last_call_of_fewer_rows_tells_nothing() -> None:
    sizes = BatchSizes()
    for _ in range(4):
        sizes.choose("shape", 4, BATCH_MAX)
        sizes.ran("shape", 3, 0.1, _memory(3))

    assert sizes.choose("shape", 4, BATCH_MAX) == 4
    assert not BatchSizes()._known


def test_on_a_cpu_the_planned_size_stays() -> None:
    sizes = BatchSizes()
    for _ in range(5):
        sizes.choose("shape", 4, BATCH_MAX)
        sizes.ran("shape", 4, 1.0, None)

    assert sizes.choose("shape", 4, BATCH_MAX) == 4


def test_a_torn_file_is_learned_anew(tmp_path: Path) -> None:
    (tmp_path / "batch_sizes.json").write_text('{"shape": {"cost_s"')

    assert BatchSizes().choose("shape", 4, BATCH_MAX) == 4


def test_a_large_denoiser_begins_with_one_row_on_a_gpu_and_goes_up_by_its_cost() -> None:
    large, small = 12_000_000_000, 2_600_000_000
    assert [first_size(4, parameters, "cuda") for parameters in (large, small)] == [1, 4]
    assert first_size(4, large, "cpu") == 4, "nothing is measured on a CPU, so that it would stay at 1"

    sizes = BatchSizes()
    sizes_run = []
    for _ in range(6):
        size = sizes.choose("shape", first_size(4, large, "cuda"), 64)
        sizes.ran("shape", size, seconds=1.0 + 0.985 * (size - 1), memory=_memory(size), cost_tflop=size)
        sizes_run.append(size)
    assert sizes_run == [1, 1, 2, 2, 2, 2]  # two rows gain 1 %: it is the cheapest size, and four are not tried
