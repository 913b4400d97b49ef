"""CPU a row beyond the model: sdbatch's and tuned Ray Data's, each less that of the bare pipeline calls.

    each pair: bare calls, Ray Data tuned by hand, sdbatch --> CPU ms a row in the steady part --> what is left of it

The same manifest, model and batches. Beside it stands what each process spends outside its own calls of the model, by
the clock of its threads: in it one arm cannot gain from calls that are cheaper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import manifest, model, probe
from benchmarks.baselines import bare
from benchmarks.lab import Lab, load
from benchmarks.table import Row, paired, row
from benchmarks.trial import Trial, compare, run_arm, steady_of, watch

ROWS = 768
OURS, TUNED = "sdbatch", "Ray Data tuned by hand"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One run of each arm.

    Attributes:
        bare_ms: CPU ms a row of the bare calls.
        ours: Of sdbatch.
        tuned: Of Ray Data.
    """

    bare_ms: float
    ours: Trial
    tuned: Trial


def rows(lab: Lab) -> list[Row]:
    """Measure; nothing in a quick lab, as there is nothing to count."""
    if lab.is_quick:
        return []
    folder = model.make(lab.folder / "model")
    file = manifest.write(lab.folder / "manifest.parquet", ROWS, lab.seed)
    pairs = []
    for number in range(lab.pairs):
        found = {}
        for arm in (OURS, TUNED)[:: -1 if number % 2 else 1]:
            found[arm] = run_arm(arm, file, folder, lab.folder / f"{number}-{arm.replace(' ', '-')}")
        pair = Pair(bare_ms=_bare_ms(lab, number, file, folder), ours=found[OURS], tuned=found[TUNED])
        mine, theirs = pair.ours, pair.tuned
        print(
            f"  CPU ms a row: bare {pair.bare_ms:.2f}, sdbatch {mine.cpu_ms:.2f}, Ray Data {theirs.cpu_ms:.2f}; "
            f"outside calls {outside_ms(mine):.2f} and {outside_ms(theirs):.2f}; load {load()}",
            flush=True,
        )
        pairs.append(pair)
    said = [compare([pair.tuned, pair.ours]) for pair in pairs]
    return _table(pairs, said[0])


def _bare_ms(lab: Lab, number: int, file: Path, folder: Path) -> float:
    output = lab.folder / f"{number}-bare"
    (output / "notes").mkdir(parents=True)
    watched = watch(f"{bare.__name__}:main", (file, folder, output), output)
    notes = probe.read(output / "notes")
    steady = steady_of(notes, notes[-1].end_s)
    return 1000 * (watched.meter.cpu_s(steady.end_s) - watched.meter.cpu_s(steady.begin_s)) / steady.rows


def outside_ms(trial: Trial) -> float:
    """Return the CPU ms a row of a trial's steady part that its calls of the model did not take."""
    steady = steady_of(trial.notes, max(note.end_s for note in trial.notes))
    calls = [note for note in trial.notes if note.kind == "call" and note.begin_s >= steady.begin_s]
    return trial.cpu_ms - 1000 * sum(note.cpu_s for note in calls) / max(1, sum(note.rows for note in calls))


def beyond_row(ours: Sequence[float], tuned: Sequence[float], note: str) -> Row:
    """Return the row of what is left of each arm; without a ratio where the baseline took no more than bare calls.

    Such a pair was disturbed by more than is measured, and a negative ratio would pass for a bound that is kept.

    Args:
        ours: CPU ms a row beyond the bare calls, one figure a pair.
        tuned: Likewise, of Ray Data.
        note: What else there is to say.
    """
    disturbed = sum(theirs <= 0 for theirs in tuned)
    if disturbed:
        left = " and ".join(f"{mine:.1f} against {theirs:.1f}" for mine, theirs in zip(ours, tuned, strict=True))
        told = f"no ratio: in {disturbed} of {len(tuned)} pairs {TUNED} took no more than the bare calls"
        return row("overhead", note=f"{told}; CPU ms a row beyond them {left}; {note}")
    return paired("overhead", ours, tuned, [mine / theirs for mine, theirs in zip(ours, tuned, strict=True)], note)


def _table(pairs: Sequence[Pair], said: str) -> list[Row]:
    ours = [pair.ours.cpu_ms - pair.bare_ms for pair in pairs]
    tuned = [pair.tuned.cpu_ms - pair.bare_ms for pair in pairs]
    outside = [(outside_ms(pair.ours), outside_ms(pair.tuned)) for pair in pairs]
    bare_ms = median(pair.bare_ms for pair in pairs)
    return [
        beyond_row(ours, tuned, f"{ROWS} rows; the bare calls take {bare_ms:.1f} CPU ms a row; {said}"),
        paired(
            f"CPU ms a row outside the process's own calls, sdbatch / {TUNED}",
            [mine for mine, _ in outside],
            [theirs for _, theirs in outside],
            [mine / theirs for mine, theirs in outside],
            "by the clock of the threads; the smaller the better",
        ),
    ]
