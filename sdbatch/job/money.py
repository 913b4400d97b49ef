"""What GPU hours cost, and the most that a campaign may take: `prices` and the budgets in `limits`.

limits.cost, limits.gpu_hours, run --budget --> Budget          prices --> Prices
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field

from sdbatch.errors import JobError
from sdbatch.job.weights import Strict

if TYPE_CHECKING:
    from sdbatch.job.settings import Job

Period = Literal["campaign", "day", "run"]
GPU_HOURS: Final = "gpu_hours"
_BUDGET: Final = re.compile(
    r"(?P<max>\d+(?:\.\d+)?)\s*(?P<unit>[A-Z]{3}|gpu_hours?)?(?:\s*/\s*(?P<per>campaign|day|run))?"
)


class Prices(Strict):
    """The price of the machines."""

    gpu_hour: Annotated[float, Field(gt=0, le=1_000_000)] = Field(
        description="Money for one hour of one GPU; a worker without a GPU counts as one."
    )
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = Field(
        default="USD", description="Three capital letters, such as EUR."
    )


class Budget(Strict):
    """The most that may be spent in a period; a plain number stands for one of the campaign."""

    max: Annotated[float, Field(gt=0, le=1e12)] = Field(description="In GPU hours, or in the currency of `prices`.")
    per: Period = Field(
        default="campaign",
        description="All runs of the campaign together, those of one day (UTC), or each run by itself.",
    )


def budget_of(value: Any) -> Any:
    """Return a budget's values where a plain number stands for it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"max": value}
    if not isinstance(value, dict | Budget):
        raise ValueError(  # noqa: TRY004 -- pydantic turns a ValueError alone into its own error
            f"{value!r} should be a number, or {{max: NUMBER, per: campaign | day | run}}"
        )
    return value


def or_number(schema: dict[str, Any]) -> None:
    """Let a JSON Schema take a plain number as well."""
    schema["anyOf"] = [{"type": "number", "exclusiveMinimum": 0, "maximum": 1e12}, *schema.get("anyOf", [])]


def with_budget(job: Job, text: str) -> Job:
    """Return a job with one of its budgets laid over by what `--budget` says.

    Args:
        job: The job.
        text: `12.50`, `12.50EUR` or `3gpu_hours`, with `/day`, `/run` or `/campaign` behind it where the job's own
            period, or without one the campaign, is not meant.

    Raises:
        JobError: When it is not of that form, or is money and the job has no price in that currency.
    """
    found = _BUDGET.fullmatch(text.strip())
    if found is None or not 0 < float(found["max"]) <= 1e12:
        raise JobError(
            f"--budget {text}: not a budget; it is an amount over 0, such as 12.50, 12.50EUR, 3gpu_hours or 40EUR/day"
        )
    unit = found["unit"] or ""
    name = GPU_HOURS if unit.startswith("gpu_hour") else "cost"
    if name == "cost" and job.prices is None:
        raise JobError(
            f"--budget {text}: the job has no prices; say prices: {{gpu_hour: 2.10, currency: EUR}}, "
            f"or the budget in GPU hours: --budget 3gpu_hours"
        )
    if name == "cost" and unit and job.prices and unit != job.prices.currency:
        raise JobError(f"--budget {text}: the job's prices are in {job.prices.currency}, not in {unit}")
    own = getattr(job.limits, name)
    per = found["per"] or (own.per if own else "campaign")
    budget = Budget.model_validate({"max": float(found["max"]), "per": per})
    return job.model_copy(update={"limits": job.limits.model_copy(update={name: budget})})
