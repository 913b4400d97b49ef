"""The counts of one run: the work it set out to do, and its results.

    ClassifiedRows --> count_pending()          Receipt, RowOutcome --> count_receipt(), count_outcomes()

Pure: no store and no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import mul

from sdbatch.driver.one_run.select import ClassifiedRows
from sdbatch.driver.predicted.work import Work
from sdbatch.driver.rows.shared_keys import Sharing
from sdbatch.report.progress import Snapshot
from sdbatch.types import Counts, Receipt, RowOutcome, Unit

FAILURES_KEPT = 10
"""Failed rows of a run that its end names."""
FAILED_FRACTION_FROM = 100
"""`limits.failed_fraction` is compared once so many rows have finished."""

WAITING_SHOWN = 5


@dataclass(slots=True, kw_only=True)
class RunTally:
    """The counts of one run while it goes on.

    Attributes:
        is_aside: Whether its rows stand beside those of the campaign, of which they say nothing.
        counts: The counts that `run.json` promises.
        failures: Failed rows by class.
        outputs_pending: Assets this run set out to make, copies included.
        outputs_ended: Assets of committed units.
        cost_pending: Predicted work of the pending outputs, in TFLOP; rows of one key cost one.
        cost_ended: Predicted work of the ended outputs, in TFLOP.
        outputs_waiting: Rejected and blocked outputs that wait for `--reroll`.
        outputs_given_up: Outputs that are wanted and have no number left below the bound of `limits.rerolls`.
        waiting: Rows that wait, by the source that they lack.
        work: The pending outputs that are rendered, and not copied, by model and shape.
        unselected_made: Rows that the selection leaves out and that have all their outputs.
        unselected_failed: Rows that the selection leaves out and that had failed.
        first_failures: The first rows that failed in this run, `FAILURES_KEPT` at most.
    """

    is_aside: bool = False
    counts: Counts = field(default_factory=Counts)
    failures: dict[str, int] = field(default_factory=dict)
    outputs_pending: int = 0
    outputs_ended: int = 0
    cost_pending: float = 0.0
    cost_ended: float = 0.0
    outputs_waiting: int = 0
    outputs_given_up: int = 0
    waiting: Counter[str] = field(default_factory=Counter)
    work: Work = field(default_factory=Work)
    unselected_made: int = 0
    unselected_failed: int = 0
    first_failures: list[RowOutcome] = field(default_factory=list)

    def count_pending(self, parts: Iterable[ClassifiedRows], sharing: Sharing) -> None:
        """Count the outputs to make, the rows that are reused, and the rows that stay failed."""
        for part in parts:
            pending = part.pending()
            if pending.outputs:
                self.outputs_pending += sum(map(len, pending.outputs))
                asked = sharing.count(pending.rows, pending.outputs, pending.replaces)
                self.cost_pending += sum(map(mul, pending.rows.column("cost_tflop").to_pylist(), map(len, asked)))
                self.work.add(pending.rows, map(len, sharing.rendered(pending.rows, asked)))
            counts = part.counts
            self.counts.rows_reused += counts["reused"]
            self.counts.rows_withdrawn += counts["withdrawn"]
            self.outputs_waiting += part.num_waiting
            self.outputs_given_up += part.num_given_up
            self.waiting.update(part.waiting)
            self.counts.rows_waiting = self.waiting.total()
            self.unselected_made += part.unselected_made
            self.unselected_failed += part.unselected_failed
            for error_type, count in part.failures.items():
                self._count_failures(error_type, count)

    def count_outcomes(self, unit: Unit, outcomes: tuple[RowOutcome, ...]) -> None:
        """Count a unit's requests: a request is ok when each of its outputs is."""
        error_types = {outcome.id: outcome.error_type or "unknown" for outcome in outcomes}
        for error_type in error_types.values():
            self._count_failures(error_type, 1)
        room = FAILURES_KEPT - len(self.first_failures)
        self.first_failures += list({outcome.id: outcome for outcome in reversed(outcomes)}.values())[::-1][:room]
        self.counts.rows_ok += unit.num_rows - len(error_types)
        self.outputs_ended += unit.num_assets
        self.cost_ended += unit.cost_tflop
        self.counts.units_committed += 1

    def count_receipt(self, receipt: Receipt) -> None:
        """Add a receipt's counts."""
        self.counts.model_calls += receipt.model_calls
        self.counts.rows_generated += receipt.rows_generated
        self.counts.assets_put += receipt.assets_put
        self.counts.assets_adopted += receipt.assets_adopted
        self.counts.assets_copied += receipt.assets_copied
        self.counts.rows_truncated += receipt.rows_truncated
        self.counts.model_loads += receipt.load_s > 0

    def campaign(self, num_rows: int) -> dict[str, int]:
        """Return where the rows of the whole manifest stand, also those that this run leaves out; empty of rows aside.

        Args:
            num_rows: Rows of the manifest.
        """
        if self.is_aside:
            return {}
        made = self.counts.rows_ok + self.counts.rows_reused + self.unselected_made
        failed = self.counts.rows_failed + self.unselected_failed
        withdrawn = self.counts.rows_withdrawn
        return {"rows": num_rows, "made": made, "failed": failed, "open": num_rows - made - failed - withdrawn}

    @property
    def waiting_lines(self) -> list[str]:
        """What a person should know of the rows that wait: one line, or none."""
        if not self.waiting:
            return []
        first = ", ".join(sorted(self.waiting)[:WAITING_SHOWN]) + (", ..." if len(self.waiting) > WAITING_SHOWN else "")
        number = self.waiting.total()
        hint = "run again, or name another output where somebody rejected one"
        return [f"{number} row(s) waited for outputs that were not there when the run began ({first}); {hint}"]

    @property
    def withdrawn_lines(self) -> list[str]:
        """What a person should know of the rows that were taken down: one line, or none."""
        number = self.counts.rows_withdrawn
        return [f"{number} row(s) are withdrawn: they, or a source of theirs, were taken down"] if number else []

    @property
    def failed_fraction(self) -> float:
        """Share of the rows finished in this run that failed; 0 before `FAILED_FRACTION_FROM` have finished."""
        finished = self.counts.rows_ok + self.counts.rows_failed
        return self.counts.rows_failed / finished if finished >= FAILED_FRACTION_FROM else 0.0

    def snapshot(self, *, working_s: float, workers: int, in_flight: int) -> Snapshot:
        """Return where the run stands."""
        return Snapshot(
            working_s=working_s,
            outputs_ended=self.outputs_ended,
            outputs_pending=self.outputs_pending,
            cost_share=self.cost_ended / self.cost_pending if self.cost_pending else 1.0,
            rows_failed=self.counts.rows_failed,
            workers=workers,
            in_flight=in_flight,
        )

    def _count_failures(self, error_type: str, count: int) -> None:
        self.counts.rows_failed += count
        self.failures[error_type] = self.failures.get(error_type, 0) + count
