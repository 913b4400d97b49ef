"""What the runs of a campaign have taken of the machines, added up from run to run.

    newest run's run.json, else its status.json and its last beat --> spending_before() --> Spending
                                                                  + this run's own --> its records

Each run writes down what all earlier ones took, so that whoever follows reads one or two objects, however many runs
there were; a killed driver's run counts up to its last beat.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from sdbatch.campaign import layout
from sdbatch.campaign.checked import UnreadableFile, is_spending
from sdbatch.campaign.files import run_ids
from sdbatch.campaign.read import read_json, read_record, read_status
from sdbatch.job import Prices
from sdbatch.storage import Store

DAYS_MAX: Final = 7
"""Days that a record tells of by themselves; older ones are in the sum alone."""
HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Time of workers, times their GPUs, and the money of it.

    Attributes:
        gpu_s: Seconds of all.
        priced: Of them the seconds that had a price, and the money, by currency.
    """

    gpu_s: float = 0.0
    priced: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def at(cls, prices: Prices | None, gpu_s: float) -> Spent:
        """Return some seconds at a price."""
        if prices is None:
            return cls(gpu_s=gpu_s)
        return cls(gpu_s=gpu_s, priced={prices.currency: (gpu_s, gpu_s / HOUR_S * prices.gpu_hour)})

    def plus(self, other: Spent) -> Spent:
        """Return both together."""
        priced = dict(self.priced)
        for currency, (gpu_s, money) in other.priced.items():
            had_s, had = priced.get(currency, (0.0, 0.0))
            priced[currency] = (had_s + gpu_s, had + money)
        return Spent(gpu_s=self.gpu_s + other.gpu_s, priced=priced)

    def money(self, prices: Prices) -> float:
        """Return the money of all; seconds that had no price in this currency count at today's."""
        gpu_s, money = self.priced.get(prices.currency, (0.0, 0.0))
        return money + max(self.gpu_s - gpu_s, 0.0) / HOUR_S * prices.gpu_hour

    def as_dict(self) -> dict[str, Any]:
        """Return it as it stands in a record."""
        return {"gpu_s": round(self.gpu_s, 6), "priced": {name: list(of) for name, of in self.priced.items()}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What runs took, together and by day.

    Attributes:
        total: Of all of them.
        days: Of those of the newest `DAYS_MAX` days (UTC), by day.
        num_unrecorded: Runs of older versions, which did not record it; they count nothing.
    """

    total: Spent = Spent()
    days: Mapping[str, Spent] = field(default_factory=dict)
    num_unrecorded: int = 0

    @classmethod
    def at(cls, prices: Prices | None, gpu_s_by_day: Mapping[str, float]) -> Spending:
        """Return what one run took, at its price."""
        days = {day: Spent.at(prices, gpu_s) for day, gpu_s in gpu_s_by_day.items()}
        return cls(total=Spent.at(prices, sum(gpu_s_by_day.values())), days=days)

    def plus(self, other: Spending) -> Spending:
        """Return both together."""
        days = {day: self.of_day(day).plus(other.of_day(day)) for day in {*self.days, *other.days}}
        kept = sorted(days)[-DAYS_MAX:]
        return Spending(
            total=self.total.plus(other.total),
            days={day: days[day] for day in kept},
            num_unrecorded=self.num_unrecorded + other.num_unrecorded,
        )

    def of_day(self, day: str) -> Spent:
        """Return what was taken on a day."""
        return self.days.get(day, Spent())

    def as_dict(self) -> dict[str, Any]:
        """Return it as it stands in a record."""
        return {
            **self.total.as_dict(),
            "days": {day: spent.as_dict() for day, spent in self.days.items()},
            "num_unrecorded": self.num_unrecorded,
        }


def spending_of(values: Mapping[str, Any]) -> Spending:
    """Return what `Spending.as_dict` wrote."""
    return Spending(
        total=_spent_of(values),
        days={day: _spent_of(of_day) for day, of_day in values["days"].items()},
        num_unrecorded=values["num_unrecorded"],
    )


def _spent_of(values: Mapping[str, Any]) -> Spent:
    return Spent(gpu_s=values["gpu_s"], priced={name: (of[0], of[1]) for name, of in values["priced"].items()})


def spending_before(store: Store, run: str, *, is_bounded: bool = True) -> Spending:
    """Return what all runs before one have taken.

    Args:
        store: The campaign.
        run: The one that is to be counted by itself.
        is_bounded: Whether a budget hangs on it: a record that sdbatch did not write is refused then, and else its run
            counts as one that recorded nothing.

    Raises:
        UserError: When the newest record of it is not one that sdbatch wrote.
    """
    earlier = [each for each in run_ids(store) if each < run]
    unreadable = Spending()
    for number in range(len(earlier), 0, -1):
        try:
            own = run_record(store, earlier[number - 1])
        except UnreadableFile:
            if is_bounded:
                raise
            unreadable = Spending(num_unrecorded=unreadable.num_unrecorded + 1)
            continue
        if own is None:
            continue  # it never came to ask for a worker
        if "spending" not in own:
            return unreadable.plus(Spending(num_unrecorded=number))
        return unreadable.plus(spending_of(own["spending"]["before"])).plus(spending_of(own["spending"]["own"]))
    return unreadable


def run_record(store: Store, run: str) -> dict[str, Any] | None:
    """Return a run's `run.json`, or of a killed driver its `status.json` with what its last beat says it had taken.

    Returns:
        None for a run that wrote neither.

    Raises:
        UserError: When one of them is not what sdbatch wrote.
    """
    with suppress(FileNotFoundError):
        return read_record(store, run)
    try:
        status = read_status(store, run)
    except FileNotFoundError:
        return None
    if "spending" not in status:
        return status
    beat = _beat_of(store, run)
    if beat is None or beat["own"]["gpu_s"] < status["spending"]["own"]["gpu_s"]:
        return status
    return {**status, "spending": {**status["spending"], "own": beat["own"], "slots": beat["slots"]}}


def _beat_of(store: Store, run: str) -> dict[str, Any] | None:
    """Return what the last beat of a run's driver says of its workers; None where it is gone, or says nothing."""
    try:
        beat = read_json(store, layout.beat(layout.epoch_of(run)))
    except (FileNotFoundError, ValueError):
        return None
    told = beat.get("spending")
    if beat.get("run_id") != run or not isinstance(told, dict) or not is_spending({**_NOTHING, **told}):
        return None
    return told


_NOTHING: Final = {"before": Spending().as_dict(), "own": None, "slots": None}


def slots_of(seconds: Iterable[tuple[Iterable[str], float, float]]) -> list[dict[str, Any]]:
    """Return how long workers held their slots, as it stands in a record.

    Args:
        seconds: For each shape of slot the models it may hold, its GPUs and its seconds.
    """
    return [
        {"models": sorted(models), "gpus": gpus, "slot_s": round(slot_s, 6), "gpu_s": round(slot_s * gpus, 6)}
        for models, gpus, slot_s in seconds
    ]
