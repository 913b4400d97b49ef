"""JSON files of a campaign, looked at before anything in them is believed.

    values of lease, beat, status.json, run.json --> holder_of(), status_of(), record_of() --> the same, or one line

A campaign may have been edited by hand, cut off by a disk or made by a stranger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from sdbatch.errors import UserError

PID_MAX: Final = 1 << 22
"""Largest process id that Linux gives."""
TEXT_CHARACTERS_MAX: Final = 500
REMEDIES: Final = {
    "lease": "where no run drives the campaign, remove it",
    "status": "remove it: it only tells of its run, and no asset is lost",
    "record": "remove it: it only tells of its run, and no asset is lost",
}

Rule = Callable[[Any], bool]


class UnreadableFile(UserError):
    """A JSON file of the campaign is not what sdbatch writes."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= TEXT_CHARACTERS_MAX


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _is_number_or_none(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_count(number) for number in value.values())


def _has_row_counts(value: Any) -> bool:
    return _is_counts(value) and {"rows_ok", "rows_failed", "rows_reused"} <= value.keys()


def _is_rates(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_number(rate) and rate > 0 for rate in value.values())


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_job(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("models"), dict)


def _is_made_with(value: Any) -> bool:
    """Whether it is run and facts by model by determinism; see `sdbatch.driver.one_run.made_with`."""
    if not isinstance(value, dict) or not all(isinstance(models, dict) for models in value.values()):
        return False
    entries = [entry for models in value.values() for entry in models.values()]
    return all(
        isinstance(entry, dict)
        and _is_text(entry.get("run"))
        and isinstance(entry.get("facts"), dict)
        and all(isinstance(fact, str) for fact in entry["facts"].values())
        for entry in entries
    )


def _is_spent(value: Any) -> bool:
    """Whether it is seconds and money; see `sdbatch.campaign.spending.Spent`."""
    return (
        isinstance(value, dict)
        and _is_number(value.get("gpu_s"))
        and isinstance(value.get("priced"), dict)
        and all(isinstance(of, list) and len(of) == 2 and all(map(_is_number, of)) for of in value["priced"].values())
    )


def _is_total(value: Any) -> bool:
    return (
        _is_spent(value)
        and _is_count(value.get("num_unrecorded"))
        and isinstance(value.get("days"), dict)
        and all(map(_is_spent, value["days"].values()))
    )


def _is_slot(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("models"), list)
        and all(map(_is_text, value["models"]))
        and all(_is_number(value.get(name)) for name in ("gpus", "slot_s", "gpu_s"))
    )


def is_spending(value: Any) -> bool:
    """Whether it is what earlier runs took, what this one did, and by which slots; see `sdbatch.campaign.spending`."""
    return (
        isinstance(value, dict)
        and _is_total(value.get("before"))
        and _is_total(value.get("own"))
        and isinstance(value.get("slots"), list)
        and all(map(_is_slot, value["slots"]))
    )


_HOLDER: Final[Mapping[str, Rule]] = {
    "token": _is_text,
    "host": _is_text,
    "pid": lambda value: _is_count(value) and 0 < value <= PID_MAX,
    "process_start": _is_text,
    "since": _is_text,
}
_STATUS: Final[Mapping[str, Rule]] = {
    "run_id": _is_text,
    "state": _is_text,
    "updated_at": _is_text,
    "rows": _is_count,
    "rate_per_s": _is_number_or_none,
    "eta_s": _is_number_or_none,
    "counts": _has_row_counts,
}
_STATUS_LATER: Final[Mapping[str, Rule]] = {
    "key_version": _is_count,
    "made_with": _is_made_with,
    "spending": is_spending,
    "campaign": _is_counts,
}
_RECORD: Final[Mapping[str, Rule]] = {
    "run_id": _is_text,
    "job": _is_job,
    "key_version": _is_count,
    "rate_tflop_per_s": _is_rates,
    "made_with": _is_made_with,
    "counts": _is_counts,
    "campaign": _is_counts,
    "versions": _is_mapping,
    "spending": is_spending,
}


def holder_of(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return who holds an epoch, as its lease says.

    Args:
        values: Object of the file.
        name: Its URL, for the message.

    Raises:
        UnreadableFile: When it is not a lease.
    """
    return _checked(values, name, "lease", {key: rule for key, rule in _HOLDER.items() if key in values})


def status_of(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a run's `status.json`. See `holder_of`."""
    later = {key: rule for key, rule in _STATUS_LATER.items() if key in values}
    return _checked(values, name, "status", {**_STATUS, **later})


def record_of(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a run's `run.json`. See `holder_of`."""
    return _checked(values, name, "record", {key: rule for key, rule in _RECORD.items() if key in values})


def unreadable(name: str, kind: str, why: str) -> UnreadableFile:
    """Return the error of a file that cannot be read."""
    return UnreadableFile(f"{name}: is not the {kind} that sdbatch wrote ({why}); {REMEDIES[kind]}")


def _checked(values: Mapping[str, Any], name: str, kind: str, rules: Mapping[str, Rule]) -> dict[str, Any]:
    for key, rule in rules.items():
        if key not in values:
            raise unreadable(name, kind, f"{key} is missing")
        if not rule(values[key]):
            raise unreadable(name, kind, f"{key} is {repr(values[key])[:60]}")
    return dict(values)
