"""The table: what is promised, what was measured, and whether it is reached.

    TARGETS (every promise, once) + a group's rows --> full() --> to_markdown() / to_json()

A group calls `row("model_share", ours=..., baseline=..., ratio=...)`; a promise that nobody measured is shown as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

Rule = Literal["at least", "at most", "exactly"]
_HOLDS: Mapping[Rule, Callable[[float, float], bool]] = {
    "at least": lambda value, bound: value >= bound,
    "at most": lambda value, bound: value <= bound,
    "exactly": lambda value, bound: value == bound,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. What is judged is `ratio`, or `ours` where there is no ratio.

    Attributes:
        name: A target's, or one of the group's own for a comparison without a bound.
        ours: What sdbatch did, in `unit`; median of the pairs; None when it was not measured.
        baseline: What it is compared with, in `unit`; None where there is nothing to compare with.
        ratio: ours to baseline, the better the larger; median of the pairs' own ratios, not the ratio of medians.
        must: Bound of what is judged; None where nothing is promised.
        aim: What it should become.
        unit: Of `ours` and `baseline`.
        note: What the reader has to know: the number of pairs, what the baseline lacked.
        rule: How what is judged stands to `must`.
        spread: Lowest and highest of what is judged over the pairs.
        title: The quantity in words.
    """

    name: str
    ours: float | None = None
    baseline: float | None = None
    ratio: float | None = None
    must: float | None = None
    aim: float | None = None
    unit: str = ""
    note: str = ""
    rule: Rule = "at least"
    spread: tuple[float, float] | None = None
    title: str = ""

    @property
    def judged(self) -> float | None:
        """Return the figure that `must` bounds."""
        return self.ours if self.ratio is None else self.ratio

    @property
    def is_reached(self) -> bool | None:
        """Return whether the promise is kept; None when nothing is promised or nothing was measured."""
        if self.must is None or self.judged is None:
            return None
        return _HOLDS[self.rule](self.judged, self.must)


@dataclass(frozen=True, slots=True)
class Target:
    """A promise; see `Row`."""

    title: str
    must: float
    aim: float | None = None
    unit: str = ""
    rule: Rule = "at least"


GPU_NOTE = "not measured here; `python -m benchmarks.gpu` measures it on a GPU"

TARGETS: Mapping[str, Target] = {
    "model_share": Target("time in the model / wall, steady, 2 workers", 0.95, 0.975),
    "cpu_per_row": Target("CPU per row, plain loop / sdbatch", 2.0, 2.6, "CPU ms a row"),
    "ray_data_tuned": Target("steady rows/s against Ray Data tuned by hand", 1.15, 1.4, "rows/s"),
    "campaign_cpu": Target("a campaign as it comes: CPU, grouped Ray Data / sdbatch, start included", 1.3, 1.8, "s"),
    "campaign_rate": Target(
        "a campaign as it comes: rows/s, sdbatch / grouped Ray Data, start included", 1.3, 1.8, "rows/s"
    ),
    "overhead": Target(
        "CPU a row beyond the bare pipeline calls, sdbatch / Ray Data tuned by hand",
        0.6,
        0.4,
        "CPU ms a row",
        "at most",
    ),
    "ray_data_documented": Target(
        "rows/s against Ray Data as documented, sleeping workers, one Parquet file; per worker", 0.9, 0.97, "rows/s"
    ),
    "sleeping_16": Target("rows/s per worker at 16 sleeping workers / at 1", 0.95, 0.98, "rows/s a worker"),
    "noop_wall": Target("10^6 no-op rows without assets, 2 workers: wall per row", 15, 10, "us", "at most"),
    "noop_messages": Target(
        "10^6 no-op rows: control messages per row", 1 / 512, 1 / 1024, "messages a row", "at most"
    ),
    "plan_cpu": Target("plan of 10^6 rows without sources: CPU", 6, 4, "s", "at most"),
    "plan_memory": Target("plan of 10^6 rows without sources: peak memory", 250, 200, "MiB", "at most"),
    "resume": Target("resume at 10^6 rows, 90 % done: time to the first unit", 8, 5, "s", "at most"),
    "resume_memory": Target("resume at 10^6 rows, 90 % done: peak memory", 400, 250, "MiB", "at most"),
    "plan_cpu_10m": Target("plan of 10^7 rows without sources: CPU", 70, 35, "s", "at most"),
    "plan_memory_10m": Target("plan of 10^7 rows without sources: peak memory", 500, 250, "MiB", "at most"),
    "resume_10m": Target("resume at 10^7 rows, 90 % done: CPU to the first request", 60, 30, "s", "at most"),
    "resume_memory_10m": Target("resume at 10^7 rows, 90 % done: peak memory", 1024, 512, "MiB", "at most"),
    "runs_status": Target("365 runs of 1,000 rows: store calls of `status`", 5, 3, "calls", "at most"),
    "runs_resume": Target("365 runs of 1,000 rows: objects that a resume reads", 20, 10, "objects", "at most"),
    "assets_gallery_disk": Target("10^5 assets on disk: gallery and metadata, CPU", 60, 30, "s", "at most"),
    "assets_verify_disk": Target("10^5 assets on disk: verify / hashing alone, CPU", 1.2, 1.1, "CPU s", "at most"),
    "assets_gallery_bucket": Target("10^5 assets in a bucket: gallery and metadata, CPU", 60, 30, "s", "at most"),
    "assets_verify_bucket": Target("assets in a bucket: verify / hashing alone, CPU", 1.2, 1.1, "CPU s", "at most"),
    "tail_8": Target("tail: total cost / (8 x makespan), 95/5 pictures and clips, costs known within 30 %", 0.97, 0.99),
    "tail_64": Target("tail: total cost / (64 x makespan), the same", 0.93, 0.99),
    "encoding": Target("rows/s with encoding (38 % of a row's model time) / without", 0.95, 0.98, "rows/s"),
    "slow_sources": Target("rows/s with slow sources / without", 0.95, 0.98, "rows/s"),
    "count_model_loads": Target("model loads / workers x models", 1, None, "loads", "exactly"),
    "count_text_rows": Target("rows through the text encoder / distinct prompts", 1, None, "rows", "exactly"),
    "count_batches": Target("pipeline calls / full batches", 1, None, "calls", "exactly"),
    "gpu_sdxl": Target("SDXL 1024 px, 20 steps, CFG, bf16, H200: ids in to files out", 1.5, 1.9, "img/s"),
    "gpu_sd15": Target("SD1.5 512 px, 20 steps, CFG, bf16, H200", 9, 13, "img/s"),
    "gpu_sdxl_4_steps": Target("SDXL 1024 px, 4 steps, with PNG, H200", 7, 11, "img/s"),
    "gpu_wan": Target("Wan2.1 1.3B 480p, bf16, H200: share of the matrix rate", 0.45, 0.60),
    "gpu_busy": Target("GPU busy share, H200", 0.97, 0.99),
}


def row(
    name: str,
    *,
    ours: float | None = None,
    baseline: float | None = None,
    ratio: float | None = None,
    spread: tuple[float, float] | None = None,
    note: str = "",
) -> Row:
    """Return the row of a target, with its bounds.

    Raises:
        KeyError: When nothing of that name is promised.
    """
    target = TARGETS[name]
    return Row(
        name=name,
        ours=ours,
        baseline=baseline,
        ratio=ratio,
        must=target.must,
        aim=target.aim,
        unit=target.unit,
        rule=target.rule,
        spread=spread,
        note=note,
        title=target.title,
    )


def paired(name: str, ours: Sequence[float], baseline: Sequence[float], ratios: Sequence[float], note: str = "") -> Row:
    """Return the row of interleaved pairs: medians, and the spread of the pairs' ratios.

    Args:
        name: Of a target, or a comparison's own.
        ours: One figure a pair, in pairs' order.
        baseline: Likewise.
        ratios: Likewise.
        note: What else there is to say; the number of pairs is added.
    """
    counted = f"{len(ratios)} pairs" + (f"; {note}" if note else "")
    figures: dict[str, Any] = {
        "ours": median(ours),
        "baseline": median(baseline),
        "ratio": median(ratios),
        "spread": (min(ratios), max(ratios)),
        "note": counted,
    }
    return row(name, **figures) if name in TARGETS else Row(name=name, **figures)


def full(measured: Iterable[Row]) -> list[Row]:
    """Return every promise in the order of `TARGETS`, measured or not, then the comparisons beside them."""
    found = {one.name: one for one in measured}
    missing = {name: row(name, note=GPU_NOTE if name.startswith("gpu_") else "not measured") for name in TARGETS}
    return [found.pop(name, missing[name]) for name in TARGETS] + list(found.values())


def to_json(one: Row) -> dict[str, Any]:
    """Return a row as plain values, with `is_reached`."""
    return {**asdict(one), "is_reached": one.is_reached}


def from_json(values: Mapping[str, Any]) -> Row:
    """Return the row that `to_json` wrote."""
    found = {key: value for key, value in values.items() if key != "is_reached"}
    if found.get("spread") is not None:
        found["spread"] = tuple(found["spread"])
    return Row(**found)


def to_markdown(rows: Iterable[Row]) -> str:
    """Return the table as Markdown."""
    lines = ["| quantity | ours | baseline | ratio | spread | must | aim | reached | note |", "|---" * 9 + "|"]
    for one in rows:
        title, ours, baseline, ratio, must, reached = _cells(one)
        cells = (title, ours, baseline, ratio, _range(one), must, _bound(one.rule, one.aim), reached, one.note)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


PAGE_MARKS = ("<!-- speed: made by `make bench` -->", "<!-- /speed -->")


def in_page(text: str, rows: Iterable[Row], said: str) -> str:
    """Return a page with the promised rows between its marks; comparisons beside them stay in the results.

    Args:
        text: The page.
        rows: Measured or not; those that were not are left out.
        said: What stands above the table.
    """
    begin, end = PAGE_MARKS
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    lines = ["| quantity | sdbatch | baseline | ratio | must | reached |", "|---|---|---|---|---|---|"]
    for one in rows:
        if one.name in TARGETS and one.judged is not None:
            lines.append("| " + " | ".join(_cells(one)) + " |")
    return f"{head}{begin}\n\n{said}\n\n" + "\n".join(lines) + f"\n\n{end}{tail}"


README_MARKS = ("<!-- compared: made by `make bench` -->", "<!-- /compared -->")
COMPARED: Mapping[str, str] = {
    "steady rows/s / plain loop": "one process",
    "steady rows/s / batched loop": "the same in batches",
    "steady rows/s / accelerate": "accelerate",
    "steady rows/s / Ray Data as documented": "as its guide has it",
    "ray_data_tuned": "repartitioned by hand",
}
"""Words of a line of the README's table, by the comparison whose baseline it shows; the last line is ours."""


def in_readme(text: str, rows: Iterable[Row]) -> str:
    """Return the README with the rows a second of every arm between its marks, and below them how sure they are.

    Args:
        text: The README; what its table says besides the rates stays.
        rows: With all of `COMPARED`; of a run without them the README stays as it is.
    """
    measured = {one.name: one for one in rows if one.ratio is not None}
    if not measured.keys() >= {*COMPARED, "cpu_per_row"}:
        return text
    begin, end = README_MARKS
    head, _, rest = text.partition(begin)
    inner, _, tail = rest.partition(end)
    lines = [line for line in inner.splitlines() if line.startswith("|")]
    shown = {"sdbatch": measured["ray_data_tuned"].ours} | {
        words: measured[name].baseline for name, words in COMPARED.items()
    }
    best = max(rate for rate in shown.values() if rate is not None)
    for words, rate in shown.items():
        (number,) = (place for place, line in enumerate(lines) if words in line.split("|")[1])
        _, arm, _, *others = lines[number].split("|")
        rate_text = f"**{_figure(rate)}**" if rate == best else _figure(rate)
        lines[number] = "|".join(["", arm, f" {rate_text} ", *others])
    split, tuned, loop = (measured[name] for name in ("steady rows/s / accelerate", "ray_data_tuned", "cpu_per_row"))
    said = (
        f"sdbatch made {_times(split)} as many rows a second as accelerate's loop, which commits nothing, and "
        f"{_times(tuned)} as many as Ray Data by hand (the project's own bound is {_figure(tuned.must)}). A row took "
        f"{_times(loop)} less CPU than in the plain loop (bound {_figure(loop.must)})."
    )
    return f"{head}{begin}\n\n" + "\n".join(lines) + f"\n\n{said}\n\n{end}{tail}"


def _times(one: Row) -> str:
    """Return a ratio in words, with the range of its pairs."""
    return f"{_figure(one.ratio)} times" + (f" ({_range(one)})" if one.spread else "")


def _range(one: Row) -> str:
    """Return the least and the greatest ratio of the pairs, empty where there are none."""
    return "" if one.spread is None else f"{_figure(one.spread[0])} to {_figure(one.spread[1])}"


def _cells(one: Row) -> tuple[str, ...]:
    """Return title, ours, baseline, ratio, must and whether it is reached."""
    ours, baseline = (
        "" if value is None else f"{_figure(value)} {one.unit}".strip() for value in (one.ours, one.baseline)
    )
    reached = {True: "yes", False: "**no**", None: ""}[one.is_reached]
    return one.title or one.name, ours, baseline, _figure(one.ratio), _bound(one.rule, one.must), reached


def _figure(value: float | None) -> str:
    """Return three significant digits."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _bound(rule: Rule, bound: float | None) -> str:
    sign = {"at least": "", "at most": "≤ ", "exactly": "= "}[rule]
    return "" if bound is None else sign + _figure(bound)
