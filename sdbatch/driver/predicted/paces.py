"""How long outputs took, by model, device and shape: kept for later forecasts, of any campaign.

    receipts --> Paces.add() --> run.json, and paces.json in the user's cache folder --> Paces of a later plan

The cache is bounded, and several drivers may write it at once: each adds what it measured to what lies there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sdbatch.canonical import canonical
from sdbatch.checkpoints import ModelInfo
from sdbatch.errors import UserError
from sdbatch.storage.cache import cache_folder
from sdbatch.types import Receipt, Unit

LOG = logging.getLogger("sdbatch.driver")
ENTRIES_MAX: Final = 512
"""Entries that are kept; those that were added to longest ago go first."""
SAMPLES_MAX: Final = 32
"""Newest units that are kept of each entry."""
TEXT_MAX: Final = 200
START: Final = "start"
LOAD: Final = "load"
"""Stand in place of a shape: a worker's start (of no model), and a model's load."""


class Key(NamedTuple):
    """What a measurement is of.

    Attributes:
        model: Identity of the model and of the options that change its speed; see `identity_of`. "" for a start.
        device: Name of the GPU, or `CPU`.
        shape: See `sdbatch.types.Request`; or `START`, or `LOAD`.
    """

    model: str
    device: str
    shape: str


@dataclass(slots=True, kw_only=True)
class Measured:
    """What was measured of one key.

    Attributes:
        tflop: Predicted work of one output.
        at_s: When it was added to last, seconds since 1970.
        samples: Seconds an output and number of outputs, of each of the newest units.
    """

    tflop: float
    at_s: float
    samples: list[tuple[float, int]] = field(default_factory=list)

    @property
    def num_outputs(self) -> int:
        """Outputs that were measured."""
        return sum(number for _, number in self.samples)

    @property
    def median_s(self) -> float:
        """Seconds of an output: the median over outputs."""
        half = self.num_outputs / 2
        seen = 0
        for seconds, number in sorted(self.samples):
            seen += number
            if seen >= half:
                return seconds
        return 0.0


class Paces:
    """Measurements by key."""

    def __init__(self) -> None:
        self.by_key: dict[Key, Measured] = {}

    def add_unit(self, model: str, device: str, unit: Unit, receipt: Receipt) -> None:
        """Add what a unit's worker told of it."""
        now_s = time.time()
        if receipt.load_s > 0:
            self._add(Key(model, device, LOAD), 0.0, now_s, [(receipt.load_s, 1)])
        shape = unit.requests[0].shape
        if shape and receipt.rows_generated and receipt.generate_s > 0:
            sample = (receipt.generate_s / receipt.rows_generated, receipt.rows_generated)
            self._add(Key(model, device, shape), unit.requests[0].cost_tflop, now_s, [sample])

    def add_starts(self, device: str, starts_s: Iterable[float]) -> None:
        """Add how long workers took from their slots to readiness."""
        self._add(Key("", device, START), 0.0, time.time(), [(seconds, 1) for seconds in starts_s])

    def merge(self, other: Paces) -> None:
        """Add all that another one measured."""
        for key, measured in other.by_key.items():
            self._add(key, measured.tflop, measured.at_s, measured.samples)

    def _add(self, key: Key, tflop: float, at_s: float, samples: Iterable[tuple[float, int]]) -> None:
        known = self.by_key.setdefault(key, Measured(tflop=tflop, at_s=at_s))
        known.tflop, known.at_s = tflop, max(at_s, known.at_s)
        known.samples = [*known.samples, *samples][-SAMPLES_MAX:]
        if len(self.by_key) > ENTRIES_MAX:
            del self.by_key[min(self.by_key, key=lambda each: self.by_key[each].at_s)]

    def as_list(self) -> list[dict[str, Any]]:
        """Return them as they stand in a record."""
        return [
            {
                **key._asdict(),
                "tflop": measured.tflop,
                "at_s": round(measured.at_s, 3),
                "samples": [[round(seconds, 6), number] for seconds, number in measured.samples],
            }
            for key, measured in self.by_key.items()
            if measured.samples
        ]

    @classmethod
    def of_list(cls, entries: Any) -> Paces:
        """Return what `as_list` wrote; what is not of that form is left out: it is a memory, and no record."""
        paces = cls()
        for entry in entries if isinstance(entries, list) else []:
            with suppress(KeyError, TypeError, ValueError):
                key = Key(*(_text(entry[name]) for name in Key._fields))
                samples = [(_seconds(seconds), int(number)) for seconds, number in entry["samples"]]
                paces._add(key, _seconds(entry["tflop"]), _seconds(entry["at_s"]), samples)
        return paces


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > TEXT_MAX:
        raise TypeError("no text")
    return value


def _seconds(value: Any) -> float:
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise TypeError("no number")
    return float(value)


def identity_of(model: ModelInfo) -> str:
    """Return a digest of a model's content and of the options that change how long it takes."""
    options = model.options
    decides = {
        "revision": model.combined_revision,
        "dtype": options.dtype,
        "accelerators": options.accelerators,
        "offload": options.offload,
        "offload_text_encoder": options.offload_text_encoder,
        "num_gpus": options.slot_gpus,
        "num_cpus": options.num_cpus,
    }
    return hashlib.sha256(canonical(decides).encode()).hexdigest()[:16]


def device_of(facts: Mapping[str, str]) -> str:
    """Return the device that a worker says it has."""
    return facts.get("GPU") or "CPU"


def remembered() -> Paces:
    """Return what lies in the user's cache folder; nothing where there is none, or it cannot be read."""
    try:
        return Paces.of_list(json.loads((cache_folder() / "paces.json").read_text())["paces"])
    except (OSError, UserError, ValueError, KeyError, TypeError):
        return Paces()


def remember(measured: Paces) -> None:
    """Add measurements to what lies in the user's cache folder; a folder that cannot be written keeps nothing."""
    try:
        file = cache_folder() / "paces.json"
        with file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            paces = remembered()
            paces.merge(measured)
            partial = file.with_suffix(f".{uuid.uuid4().hex}")
            partial.write_text(json.dumps({"paces": paces.as_list()}))
            partial.replace(file)
    except (OSError, UserError) as error:
        LOG.warning("not written", extra={"what": "paces.json", "error": str(error)})
