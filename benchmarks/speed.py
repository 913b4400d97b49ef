"""The same manifest by sdbatch and by what people would use instead, in turns.

    each pair: plain loop, batched loop, accelerate, Ray Data twice, sdbatch --> outputs compared --> ratios

Loops and accelerate render the first third of the rows: a row costs them the same however many follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from statistics import median

from benchmarks import manifest, model, settings
from benchmarks.lab import Lab, load
from benchmarks.table import Row, paired, row
from benchmarks.trial import Trial, compare, run_arm

ROWS = 768
SHORT_ROWS = 256
QUICK_ROWS = 48
OURS = "sdbatch"
LOOP = "plain loop"
TUNED = "Ray Data tuned by hand"
LONG = (OURS, TUNED)
ARMS = (LOOP, "batched loop", "accelerate", "Ray Data as documented", TUNED, OURS)
PICTURES = "rows/s"


def rows(lab: Lab) -> list[Row]:
    """Measure; in a quick lab only what no machine's load can change: counts and equal outputs."""
    if lab.is_quick:
        found = _pair(lab, 0, (LOOP, OURS), dict.fromkeys((LOOP, OURS), QUICK_ROWS))
        return _counts(found[OURS], compare([found[LOOP], found[OURS]]))
    sizes = {arm: ROWS if arm in LONG else SHORT_ROWS for arm in ARMS}
    pairs = [_pair(lab, number, ARMS[:: 1 if number % 2 else -1], sizes) for number in range(lab.pairs)]
    said = ""
    for found in pairs:
        said = compare([found[LOOP], *(found[arm] for arm in ARMS if arm != LOOP)])
        compare([found[TUNED], found[OURS]])
    return [*_targets(pairs, said), *_beside(pairs), *_counts(pairs[0][OURS], said)]


def _pair(lab: Lab, number: int, arms: Sequence[str], sizes: dict[str, int]) -> dict[str, Trial]:
    """Run every arm once."""
    folder = lab.folder / "model"
    if not folder.is_dir():
        model.make(folder)
    found = {}
    for arm in arms:
        file = lab.folder / f"{sizes[arm]}.parquet"
        if not file.is_file():
            manifest.write(file, sizes[arm], lab.seed)
        trial = found[arm] = run_arm(arm, file, folder, lab.folder / f"{number}-{arm.replace(' ', '-')}")
        print(
            f"  {arm}: {trial.rate_per_s:.1f} rows/s, {trial.cpu_ms:.1f} CPU ms a row, {trial.share:.3f} in the model, "
            f"{trial.wall_s:.1f} s from command to end; load {load()}",
            flush=True,
        )
    return found


def _targets(pairs: Sequence[dict[str, Trial]], said: str) -> list[Row]:
    """Return the promised rows."""
    ours = [found[OURS] for found in pairs]
    loop = [found[LOOP] for found in pairs]
    tuned = [found[TUNED] for found in pairs]
    shares = [trial.share for trial in ours]
    return [
        row(
            "model_share",
            ours=median(shares),
            baseline=median(trial.share for trial in tuned),
            ratio=median(shares),
            spread=(min(shares), max(shares)),
            note=f"{len(pairs)} runs of {ROWS} rows; the ratio is our share; baseline: {TUNED}",
        ),
        paired(
            "cpu_per_row",
            [trial.cpu_ms for trial in ours],
            [trial.cpu_ms for trial in loop],
            [theirs.cpu_ms / mine.cpu_ms for mine, theirs in zip(ours, loop, strict=True)],
            f"all processes, Ray's too; {said}",
        ),
        _rates("ray_data_tuned", ours, tuned, "repartitioned into a block a batch, batches of 16, two actors"),
    ]


def _beside(pairs: Sequence[dict[str, Trial]]) -> list[Row]:
    """Return comparisons without a bound."""
    ours = [found[OURS] for found in pairs]
    found = []
    for arm, note in (
        (LOOP, "one process"),
        ("batched loop", "one process"),
        ("accelerate", "two processes"),
        ("Ray Data as documented", "two actors, of which one gets all rows"),
    ):
        found.append(_rates(f"steady rows/s / {arm}", ours, [one[arm] for one in pairs], note))
    tuned = [one[TUNED] for one in pairs]
    for name, figure in _FIGURES.items():
        mine, theirs = ([figure(trial) for trial in trials] for trials in (ours, tuned))
        ratios = [them / us for us, them in zip(mine, theirs, strict=True)]
        found.append(paired(f"{name}: {TUNED} / sdbatch", mine, theirs, ratios, f"{ROWS} rows"))
    return found


_FIGURES: dict[str, Callable[[Trial], float]] = {
    "CPU ms a row, steady": lambda trial: trial.cpu_ms,
    "CPU s, start included": lambda trial: trial.cpu_s,
    "wall s, start included": lambda trial: trial.wall_s,
}


def _rates(name: str, ours: Sequence[Trial], theirs: Sequence[Trial], note: str) -> Row:
    ratios = [mine.rate_per_s / other.rate_per_s for mine, other in zip(ours, theirs, strict=True)]
    return paired(name, [mine.rate_per_s for mine in ours], [other.rate_per_s for other in theirs], ratios, note)


def _counts(trial: Trial, said: str) -> list[Row]:
    """Return the exact counts of one run."""
    processes = {note.process for note in trial.notes if note.kind == "call"}
    texts = sum(note.rows for note in trial.notes if note.kind == "text")
    loads = sum(note.kind == "load" for note in trial.notes)
    calls = sum(note.kind == "call" and note.rows > 0 for note in trial.notes)
    pictures = len(trial.files)
    return [
        _count("count_model_loads", loads, len(processes), "one model"),
        _count(
            "count_text_rows", texts, pictures + len(processes), "every prompt once, the empty negative once a worker"
        ),
        _count("count_batches", calls, ceil(pictures / settings.BATCH_SIZE), said),
    ]


def _count(name: str, ours: int, expected: int, note: str) -> Row:
    return row(name, ours=ours, baseline=expected, ratio=ours / expected, note=f"baseline: what it should be; {note}")
