"""Stages after the model: each looks at an output's pixels and gives a verdict.

    job.stages --> choose_stages() --> load_judges() --> judge() --> Verdict x output

A stage is one file, and its name is the file's: it holds `STAGE` (what the stage is), `Settings` (what a job may say of
it) and `load(settings, device) -> Judge`. Only files under `device/` may import torch, inside functions.
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from pydantic import ValidationError

from sdbatch.after.stage import Judge, Output, Stage, StageSettings, Verdict
from sdbatch.canonical import canonical
from sdbatch.errors import JobError
from sdbatch.hints import did_you_mean

__all__ = [
    "STAGES",
    "ChosenStage",
    "Judge",
    "Output",
    "Stage",
    "StageSettings",
    "Verdict",
    "check_stages",
    "choose_stages",
    "judge",
    "load_judges",
    "stages_digest",
]

_FOLDERS: Final = (__name__, f"{__name__}.device")


def _modules() -> Iterator[tuple[str, ModuleType]]:
    """Yield every stage's name and module."""
    for folder in map(importlib.import_module, _FOLDERS):
        for found in pkgutil.iter_modules(folder.__path__):
            if not found.ispkg and found.name != "stage":
                yield found.name, importlib.import_module(f"{folder.__name__}.{found.name}")


_MODULES: Final[Mapping[str, ModuleType]] = dict(_modules())
STAGES: Final[Mapping[str, Stage]] = {name: module.STAGE for name, module in _MODULES.items()}
"""Every stage by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenStage:
    """A stage with the job's settings for it.

    Attributes:
        name: In `STAGES`.
        settings: Instance of the class `Settings` in the stage's file.
    """

    name: str
    settings: StageSettings

    @property
    def stage(self) -> Stage:
        """Return what it is."""
        return STAGES[self.name]

    def load(self, device: str) -> Judge:
        """Make it ready; a stage with a model loads it here.

        Raises:
            ModelLoadFailed: When it cannot be loaded; blames no row.
        """
        loaded: Judge = _MODULES[self.name].load(self.settings, device)
        return loaded


def choose_stages(entries: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[ChosenStage, ...]:
    """Return the stages that a job names, in its order.

    Args:
        entries: Name and settings of each. See `Job.stages`.

    Raises:
        JobError: Naming what is wrong.
    """
    return tuple(_chosen(name, values) for name, values in entries)


def check_stages(stages: Iterable[ChosenStage]) -> None:
    """Look whether the files that stages name are there and fit, without torch.

    Raises:
        UserError: Naming the setting and its value.
    """
    for chosen in stages:
        chosen.settings.check()


def stages_digest(stages: Iterable[ChosenStage]) -> str | None:
    """Return the digest of the stages that may block: their files' content and their settings; None without any.

    Where the files lie is not part of it. A row that was blocked under another digest is worth another try.
    """
    blocking = [
        [chosen.name, chosen.settings.content(), chosen.settings.model_dump(mode="json", exclude={"path"})]
        for chosen in stages
        if chosen.stage.blocks
    ]
    return hashlib.sha256(canonical(blocking).encode()).hexdigest() if blocking else None


def load_judges(stages: Iterable[ChosenStage], where: str, device: str) -> list[Judge]:
    """Load the stages of one place.

    Args:
        stages: Those of the job.
        where: `device` or `cpu`.
        device: torch's name of the device.

    Raises:
        ModelLoadFailed: When one cannot be loaded.
    """
    return [chosen.load(device) for chosen in stages if chosen.stage.where == where]


def judge(judges: Iterable[Judge], outputs: Sequence[Output]) -> list[tuple[Verdict, ...]]:
    """Return the verdicts on each output, in the order of the stages."""
    by_stage = [one(outputs) for one in judges]
    return [tuple(verdicts[index] for verdicts in by_stage) for index in range(len(outputs))]


def _chosen(name: str, values: Mapping[str, Any]) -> ChosenStage:
    if name not in STAGES:
        hint = did_you_mean(name, STAGES) or f"there are {', '.join(STAGES)}"
        raise JobError(f"after: {name!r} is not a stage; {hint}")
    kind: type[StageSettings] = _MODULES[name].Settings
    try:
        return ChosenStage(name=name, settings=kind.model_validate(dict(values)))
    except ValidationError as error:
        raise JobError("\n".join(_explain_error(name, kind, problem) for problem in error.errors())) from error


def _explain_error(name: str, kind: type[StageSettings], problem: Any) -> str:
    """Return one line for one pydantic error: the setting, its value and the bound."""
    place = ".".join(["after", name, *map(str, problem["loc"])])
    if problem["type"] == "extra_forbidden":
        known = list(kind.model_fields)
        hint = did_you_mean(problem["loc"][-1], known) or f"known are {', '.join(known) or 'none'}"
        return f"{place}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{place}: missing"
    return f"{place}: {problem['input']!r} should be {problem['msg'].removeprefix('Input should be ')}"
