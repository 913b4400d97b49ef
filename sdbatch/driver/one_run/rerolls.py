"""What a run makes of a request with unwanted outputs: somebody rejected them, or a stage blocked them.

    RowOutputs + Rules --> choose() --> Choice: the reason, the outputs to make, what each of them replaces

Outputs below `num_outputs` are made as in any row; those beyond it, which replace unwanted ones, by `run --reroll`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sdbatch.campaign.excluded import RowOutputs
from sdbatch.slate import lineage, num_given_up, slate


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What holds for every request of a run.

    Attributes:
        is_retried: For each failure of the history whether this run tries again what failed so; False at the end.
        rerolls: `limits.rerolls`.
        is_rerolling: Whether unwanted outputs are replaced.
    """

    is_retried: Sequence[bool]
    rerolls: int
    is_rerolling: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What becomes of one request.

    Attributes:
        reason: Why it is made or left.
        outputs: Numbers to make, ascending.
        replaces: Of those beyond `num_outputs`, which number each replaces.
        failure: Place of the failure in the history's, where the reason is `failed`; else -1.
        further: Numbers beyond `num_outputs` that are made, or wait for `--reroll`.
        num_given_up: Outputs that are wanted and have no number left.
    """

    reason: Literal["outputs", "retry", "reroll", "failed", "reused"]
    outputs: tuple[int, ...] = ()
    replaces: Mapping[int, int] = field(default_factory=dict)
    failure: int = -1
    further: tuple[int, ...] = ()
    num_given_up: int = 0

    @property
    def num_waiting(self) -> int:
        """Outputs that `--reroll` would make."""
        return sum(n not in self.outputs for n in self.further)


def choose(row: RowOutputs, num_outputs: int, rules: Rules, again: frozenset[int] = frozenset()) -> Choice:
    """Say what a run makes of a request.

    Args:
        row: Its outputs.
        num_outputs: Outputs that it asks for.
        rules: The run's.
        again: Numbers beyond `num_outputs` that were there and are made anew, as `redo` does.
    """
    excluded = _excluded(row, rules)
    wanted = [n for n in slate(num_outputs, excluded, rules.rerolls) if n not in row.made]
    kept = {n: failure for n in wanted if (failure := _failure(row, n)) >= 0 and not rules.is_retried[failure]}
    first = [n for n in wanted if n < num_outputs and n not in kept]
    further = [n for n in wanted if n >= num_outputs and n not in kept]
    made = [n for n in further if rules.is_rerolling or n in again]
    outputs = (*first, *made)
    num_lacking = num_given_up(num_outputs, excluded, rules.rerolls)
    if outputs:
        is_retry = any(_failure(row, n) >= 0 for n in first)
        reason: Literal["outputs", "retry", "reroll"] = "reroll" if not first else "retry" if is_retry else "outputs"
        replaces = lineage(made, excluded, row.replaced)
        return Choice(
            reason=reason, outputs=outputs, replaces=replaces, further=tuple(further), num_given_up=num_lacking
        )
    blocked = [failure for n, failure in sorted(row.blocked.items()) if n in excluded and n not in row.replaced]
    failures = [*kept.values(), *blocked]
    return Choice(
        reason="failed" if failures else "reused",
        failure=failures[0] if failures else -1,
        further=tuple(further),
        num_given_up=num_lacking,
    )


def review_lines(num_waiting: int, num_lacking: int, rerolls: int) -> list[str]:
    """Return what a person should know of outputs that are not wanted and have no replacement."""
    lines = []
    if num_waiting:
        lines.append(f"{num_waiting} output(s) that were rejected or blocked wait for `run --reroll`")
    if num_lacking:
        lines.append(
            f"{num_lacking} output(s) are given up: every number of their rows that limits.rerolls = {rerolls} allows "
            "was rejected or blocked; change the row, or raise the limit"
        )
    return lines


def _excluded(row: RowOutputs, rules: Rules) -> set[int]:
    """Return the unwanted numbers; other settings of stages reopen what was blocked and has no replacement yet."""
    blocked = {n for n, failure in row.blocked.items() if n in row.replaced or not rules.is_retried[failure]}
    return row.rejected | blocked


def _failure(row: RowOutputs, n: int) -> int:
    """Return how an output ended that is not made, or its request as a whole; -1 where it was never tried."""
    return row.failed.get(n, row.blocked.get(n, row.failed.get(-1, -1)))
