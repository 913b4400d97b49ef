"""Versions and device that a campaign's outputs were made with, by determinism and model.

newest run's status.json --> MadeWith --> standards of this run --> its own status.json and run.json

Each run carries on what earlier ones wrote, so that a resume reads one object, also after a killed driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sdbatch.campaign.checked import UnreadableFile
from sdbatch.campaign.files import run_ids
from sdbatch.campaign.read import read_status
from sdbatch.dispatch.likeness import Standard, compared
from sdbatch.storage import Store


@dataclass(slots=True)
class MadeWith:
    """The versions and the device that made the outputs of each model.

    Attributes:
        by_determinism: Run and facts, by model, by `determinism`: exact outputs are others than fast ones.
        is_new: Whether something was added that no record tells of yet.
    """

    by_determinism: dict[str, dict[str, dict[str, Any]]]
    is_new: bool = False

    def standards(self, determinism: str) -> dict[str, Standard]:
        """Return what workers are compared with, by model."""
        return {
            model: Standard(source=f"run {entry['run']}", facts=entry["facts"])
            for model, entry in self.by_determinism.get(determinism, {}).items()
        }

    def add(self, determinism: str, model: str, run: str, facts: Mapping[str, str]) -> None:
        """Note that a worker made outputs of a model; the first one of the newest run counts."""
        models = self.by_determinism.setdefault(determinism, {})
        is_first = model not in models or models[model]["run"] != run
        if is_first and compared(facts):
            models[model] = {"run": run, "facts": compared(facts)}
            self.is_new = True


def read_made_with(store: Store) -> MadeWith:
    """Return the entry of the newest run that has a status; it is empty where version 0.1 wrote the status."""
    for run in reversed(run_ids(store)):
        with suppress(FileNotFoundError, UnreadableFile):  # a collection of garbage, or a status edited by hand
            return MadeWith(read_status(store, run).get("made_with", {}))
    return MadeWith({})
