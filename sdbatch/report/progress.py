"""Shows a person the progress of a run: a bar on a terminal, and elsewhere a line now and then."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from sdbatch.logs import redacted

LINE_EVERY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The progress of a run at one moment.

    Attributes:
        working_s: Wall seconds since the first worker was ready; 0 before.
        outputs_ended: Assets made or failed in this run.
        outputs_pending: Assets this run set out to make.
        cost_share: Share of the predicted work that has ended, 0..1.
        rows_failed: Rows that failed.
        workers: Ready workers.
        in_flight: Units handed out.
        noun: What the outputs are called.
    """

    working_s: float
    outputs_ended: int
    outputs_pending: int
    cost_share: float
    rows_failed: int
    workers: int
    in_flight: int
    noun: str = "assets"


def rate_and_eta(snapshot: Snapshot) -> tuple[float | None, float | None]:
    """Return assets per second and seconds to go, None while nothing has ended.

    The rate counts assets; the seconds to go follow predicted work, because videos may come last and take longer.
    """
    if not snapshot.outputs_ended or snapshot.working_s <= 0 or snapshot.cost_share <= 0:
        return None, None
    rate = snapshot.outputs_ended / snapshot.working_s
    return rate, snapshot.working_s * (1 - snapshot.cost_share) / snapshot.cost_share


@runtime_checkable
class Progress(Protocol):
    """Shows progress while a run goes on; a context manager around the work."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""

    def say(self, text: str) -> None:
        """Show a text that says what goes on."""

    def show(self, snapshot: Snapshot) -> None:
        """Show the progress of the run."""


class Silent:
    """Shows nothing: for use as a library."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def show(self, snapshot: Snapshot) -> None:
        """Show nothing."""


class Lines:
    """A line on standard error every `LINE_EVERY_S` seconds, and whenever a tenth is done."""

    def __init__(self) -> None:
        self._last_s = 0.0
        self._tenth = -1

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""

    def say(self, text: str) -> None:
        """Show a text that says what goes on."""
        sys.stderr.write(f"sdbatch: {redacted(text)}\n")
        sys.stderr.flush()

    def show(self, snapshot: Snapshot) -> None:
        """Show the progress of the run, when it is time."""
        now_s = time.monotonic()
        tenth = int(10 * snapshot.outputs_ended / max(snapshot.outputs_pending, 1))
        if not snapshot.workers or (tenth <= self._tenth and now_s - self._last_s < LINE_EVERY_S):
            return
        self._last_s, self._tenth = now_s, tenth
        self.say(describe(snapshot))


class Terminal:
    """A bar with rate and time to go."""

    def __init__(self) -> None:
        self._bar = Bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[text]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("sdbatch", total=None, text="")

    def __enter__(self) -> Self:
        """Begin."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End; the bar leaves the screen to the summary."""
        self._bar.stop()

    def say(self, text: str) -> None:
        """Show a text that says what goes on."""
        self._bar.update(self._task, text=redacted(text))

    def show(self, snapshot: Snapshot) -> None:
        """Show the progress of the run."""
        if snapshot.workers:
            self._bar.update(
                self._task,
                total=snapshot.outputs_pending,
                completed=snapshot.outputs_ended,
                text=describe(snapshot),
            )


def describe(snapshot: Snapshot) -> str:
    """Return a snapshot as one line."""
    rate, eta_s = rate_and_eta(snapshot)
    parts = [f"{snapshot.outputs_ended}/{snapshot.outputs_pending} {snapshot.noun}"]
    if rate is not None and eta_s is not None:
        parts += [per_time(rate), f"{duration(eta_s)} to go"]
    parts.append(f"{snapshot.workers} worker{'' if snapshot.workers == 1 else 's'}")
    if snapshot.rows_failed:
        parts.append(f"{snapshot.rows_failed} failed")
    return ", ".join(parts)


def per_time(rate_per_s: float) -> str:
    """Return a rate in the unit that shows it: 28.2/s, 12.0/min, 3.5/h."""
    for factor, unit in ((1, "s"), (60, "min")):
        if rate_per_s * factor >= 1:
            return f"{rate_per_s * factor:.1f}/{unit}"
    return f"{rate_per_s * 3600:.1f}/h"


def duration(seconds: float) -> str:
    """Return seconds as people say them: 12 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def money(amount: float, currency: str) -> str:
    """Return an amount of money as people say it: 12.50 EUR, 0.0042 EUR."""
    shown = f"{amount:,.2f}" if amount >= 0.1 or not amount else _small(amount)
    return f"{shown} {currency}"


def hours(amount: float) -> str:
    """Return GPU hours as people say them: 12.5 GPU hours, 42 GPU seconds."""
    if not amount:
        return "0 GPU hours"
    if 0 < amount < 0.1:
        seconds = amount * 3600
        return f"{f'{seconds:.1f}' if seconds >= 1 else _small(seconds)} GPU seconds"
    return f"{amount:,.1f} GPU hours" if amount >= 10 else f"{amount:.2f} GPU hours"


def _small(amount: float) -> str:
    """Return a small amount with two digits that are not 0."""
    return f"{amount:.{min(1 - math.floor(math.log10(abs(amount))), 12)}f}"
