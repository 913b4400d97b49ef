"""Rows become requests: precedence, what the family can make, the recipe, its key.

    columns of rows + job + models --> Resolver.resolve() --> Resolved per row, and Faults

Rows differ mostly in prompt and seed; everything else is resolved once per distinct combination and remembered
(`_Settings`), so that a million rows cost seconds.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sdbatch.config import Defaults, Job
from sdbatch.families import TaskRow, cost_tflop, nearest_multiple
from sdbatch.models import ModelInfo
from sdbatch.plan.canonical import canonical
from sdbatch.types import SEED_MAX, TASKS, Source

KEY_VERSION = 1
"""Part of every key; raised when equal recipes would no longer give equal pixels."""

DERIVED_SEED_BITS = 53
"""Derived seeds stay exact in JSON readers that know only doubles."""

NUM_OUTPUTS_MAX = 1024
STEPS_MAX = 1000
GUIDANCE_MAX = 1000.0
SETTINGS_KEPT_MAX = 65_536
SOURCE_ROLES = ("images", "mask", "video", "control_image")
_ARGUMENTS = ("fit", "height", "width", "num_inference_steps", "guidance_scale", "strength", "scheduler")
_LATER = ("keyframes", "num_frames", "duration_s", "fps", "loras", "parameters")
_TEXTS = ("id", "prompt", "negative_prompt", "seed", "seed_group")
_SETTINGS = ("task", "model", *_ARGUMENTS, "num_outputs")
_PER_ROW = frozenset({"prompt", "negative_prompt", "seed", *SOURCE_ROLES})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something wrong with one row.

    Attributes:
        offset: Row in the columns that were given, from 0.
        column: Its column.
        value: What stands there.
        message: What is wrong, with the bound.
    """

    offset: int
    column: str
    value: Any
    message: str


class Resolved(NamedTuple):
    """One row with nothing left open. See `sdbatch.types.Request` for the shared fields.

    A tuple, because a million of them are made: a frozen dataclass takes three times as long.

    Attributes:
        num_outputs: Assets the row asks for.
    """

    id: str
    request_key: str
    recipe: str
    num_outputs: int
    sources: tuple[Source, ...]
    model: str
    batch_key: str
    cost_tflop: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """What all rows with the same settings share: defaults of the texts, and the recipe's `pieces` around `holes`."""

    row: TaskRow
    prompt: str | None
    negative_prompt: str
    model: str
    num_outputs: int
    holes: tuple[str, ...]
    pieces: tuple[str, ...]
    batch_key: str
    cost_tflop: float


_Wrong = tuple[str, Any, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Faulty:
    """Settings nothing can be made with; `row` None when they do not lead to a task of a model."""

    row: TaskRow | None
    prompt: str | None
    negative_prompt: str
    wrong: tuple[_Wrong, ...]


class Resolver:
    """Resolves rows of one job.

    Args:
        job: The checked job.
        models: What `describe` found for each of the job's models.
        source_fault: Returns why a source URL may not be opened, None when it may.
        source_url: Makes a source absolute.
    """

    def __init__(
        self,
        job: Job,
        models: Mapping[str, ModelInfo],
        source_fault: Callable[[str], str | None],
        source_url: Callable[[str], str],
    ) -> None:
        self._job = job
        self._models = models
        self._source_fault = source_fault
        self._source_url = source_url
        self._kept: dict[tuple[Any, ...], _Settings | _Faulty] = {}

    def resolve(
        self, columns: Mapping[str, Sequence[Any]], num_rows: int, digests: Mapping[str, str]
    ) -> tuple[list[Resolved | None], list[Fault]]:
        """Resolve some rows.

        Args:
            columns: Known manifest columns as Python values; absent ones stand for null.
            num_rows: Their common length.
            digests: Content digest by source URL as `source_urls` gives them; one that is absent counts as `missing`.

        Returns:
            One entry per row, None where it is faulty; and the faults, in row order.
        """
        nulls: Sequence[Any] = [None] * num_rows
        settings = zip(*(columns.get(name, nulls) for name in _SETTINGS), strict=True)
        texts = zip(*(columns.get(name, nulls) for name in _TEXTS), strict=True)
        sources: Iterable[tuple[Any, ...] | None] = nulls
        if not columns.keys().isdisjoint(SOURCE_ROLES):
            sources = zip(*(columns.get(name, nulls) for name in SOURCE_ROLES), strict=True)
        unserved = _unserved(columns)
        faults: list[Fault] = []
        resolved: list[Resolved | None] = []
        for offset, (key, text, urls) in enumerate(zip(settings, texts, sources, strict=True)):
            wrong: list[_Wrong] = unserved.get(offset, [])
            row = self._resolve_row(key, text, urls, digests, wrong)
            if wrong:
                faults.extend(Fault(offset=offset, column=c, value=v, message=m) for c, v, m in wrong)
                row = None
            resolved.append(row)
        return resolved, faults

    def source_urls(self, columns: Mapping[str, Sequence[Any]]) -> set[str]:
        """Return every source of some rows that may be opened, absolute."""
        urls: set[str] = set()
        for role in SOURCE_ROLES:
            for value in columns.get(role, ()):
                urls.update(self._source_url(url) for url in _listed(value) if self._source_fault(url) is None)
        return urls

    def _resolve_row(
        self,
        key: tuple[Any, ...],
        text: tuple[Any, ...],
        urls: tuple[Any, ...] | None,
        digests: Mapping[str, str],
        wrong: list[_Wrong],
    ) -> Resolved | None:
        """Resolve one row, or add to `wrong` what is; this runs once for every row of a manifest."""
        row_id, prompt, negative_prompt, seed, seed_group = text
        settings = self._kept.get(key)
        if settings is None:
            settings = self._remembered(key)
        if prompt is None:
            prompt = settings.prompt
            if prompt is None:
                wrong.append(("prompt", None, "is missing and has no default; an empty text is a legal prompt"))
        if negative_prompt is None:
            negative_prompt = settings.negative_prompt
        if seed is None:
            seed = derived_seed(self._job.seed, seed_group or row_id)
        elif not 0 <= seed <= SEED_MAX:
            wrong.append(("seed", seed, f"is not in 0..{SEED_MAX}"))
        sources = () if urls is None else self._sources(urls, digests, wrong)
        if settings.row is not None and (urls is not None or settings.row.images[0]):
            _check_sources(settings.row, urls or (None,) * len(SOURCE_ROLES), wrong)
        if isinstance(settings, _Faulty):
            wrong.extend(settings.wrong)
            return None
        if wrong:
            return None
        values: dict[str, Any] = {"prompt": prompt, "negative_prompt": negative_prompt, "seed": seed}
        for source in sources:
            values.setdefault(source.role, []).append(source.digest)
        parts = [settings.pieces[0]]
        for name, piece in zip(settings.holes, settings.pieces[1:], strict=True):
            parts += canonical(values[name]), piece
        recipe = "".join(parts)
        return Resolved(
            row_id,
            hashlib.sha256(recipe.encode()).hexdigest(),
            recipe,
            settings.num_outputs,
            sources,
            settings.model,
            settings.batch_key,
            settings.cost_tflop,
        )

    def _remembered(self, key: tuple[Any, ...]) -> _Settings | _Faulty:
        if len(self._kept) >= SETTINGS_KEPT_MAX:
            self._kept.clear()
        settings = self._kept[key] = self._settings(dict(zip(_SETTINGS, key, strict=True)))
        return settings

    def _sources(self, urls: tuple[Any, ...], digests: Mapping[str, str], wrong: list[_Wrong]) -> tuple[Source, ...]:
        return tuple(
            self._source(role, url, digests, wrong)
            for role, value in zip(SOURCE_ROLES, urls, strict=True)
            for url in _listed(value)
        )

    def _source(self, role: str, url: str, digests: Mapping[str, str], wrong: list[_Wrong]) -> Source:
        if fault := self._source_fault(url):
            wrong.append((role, url, fault))
            return Source(role=role, url=url, digest="missing")
        absolute = self._source_url(url)
        return Source(role=role, url=absolute, digest=digests.get(absolute, "missing"))

    def _layers(self, model: str | None) -> list[Defaults]:
        """Return the defaults under a row: its model's, then the job's."""
        name = model or self._job.defaults.model or self._only_model()
        options = self._job.models.get(name or "")
        return [*([options.defaults] if options else []), self._job.defaults]

    def _only_model(self) -> str | None:
        return next(iter(self._job.models)) if len(self._job.models) == 1 else None

    def _settings(self, row: dict[str, Any]) -> _Settings | _Faulty:
        """Resolve one combination of settings, or say what is wrong with it."""
        name: str | None = row["model"] or self._job.defaults.model or self._only_model()
        layers = self._layers(name)
        task = _first(row["task"], *(layer.task for layer in layers))
        num_outputs = _first(row["num_outputs"], *(layer.num_outputs for layer in layers), 1)
        wrong: list[_Wrong] = []
        if not 1 <= num_outputs <= NUM_OUTPUTS_MAX:
            wrong.append(("num_outputs", num_outputs, f"is not in 1..{NUM_OUTPUTS_MAX}"))
        prompt = _first(*(layer.prompt for layer in layers))
        negative = _first(*(layer.negative_prompt for layer in layers), "")
        unbound = self._check_binding(name, task)
        if unbound or name is None:
            own = {column: row[column] for column in _ARGUMENTS if row[column] is not None}
            wrong += [*unbound, *_check_values(own)]
            return _Faulty(row=None, prompt=prompt, negative_prompt=negative, wrong=tuple(wrong))
        model = self._models[name]
        task_row = model.family.tasks[task]
        values = self._arguments(row, layers, model, task, wrong)
        wrong.extend(_check_values(values))
        wrong.extend(_check_family(values, model))
        if wrong:
            return _Faulty(row=task_row, prompt=prompt, negative_prompt=negative, wrong=tuple(wrong))
        texts = {"prompt": prompt, "negative_prompt": negative}
        return self._assembled(name, task, num_outputs, values, texts)

    def _check_binding(self, name: Any, task: Any) -> list[_Wrong]:
        """Check that model and task are there, and that the one serves the other."""
        wrong: list[_Wrong] = []
        if name is None:
            wrong.append(("model", None, f"is missing and has no default; the job has {', '.join(self._job.models)}"))
        elif name not in self._models:
            wrong.append(("model", name, f"is not in the job's models{_near(name, self._models)}"))
        if task not in TASKS:
            problem = "is missing and has no default" if task is None else f"is no task{_near(task, TASKS)}"
            wrong.append(("task", task, problem))
        if not wrong and task not in self._models[name].family.tasks:
            family = self._models[name].family
            served = ", ".join(family.tasks)
            wrong.append(("task", task, f"is not served by {name} ({family.title}: {served})"))
        return wrong

    def _arguments(
        self, row: dict[str, Any], layers: list[Defaults], model: ModelInfo, task_name: str, wrong: list[_Wrong]
    ) -> dict[str, Any]:
        """Settle the task's arguments: row, model's defaults, job's defaults, family's."""
        task = model.family.tasks[task_name]
        family = {
            "height": model.height,
            "width": model.width,
            "num_inference_steps": model.family.num_inference_steps,
            "guidance_scale": model.family.guidance_scale,
            "strength": model.family.strength,
            "fit": "cover",
        }
        values: dict[str, Any] = {}
        for name in _ARGUMENTS:
            if name in task.arguments:
                value = _first(row[name], *(getattr(layer, name) for layer in layers), family.get(name))
                if value is not None and value != "":
                    values[name] = value
            elif row[name] is not None:
                wrong.append((name, row[name], f"is not taken by {task_name} of {model.family.title}"))
        return values

    def _assembled(
        self, name: str, task: str, num_outputs: int, values: dict[str, Any], texts: dict[str, Any]
    ) -> _Settings:
        model = self._models[name]
        row = model.family.tasks[task]
        shared = {
            "key_version": KEY_VERSION,
            "task": task,
            "model": model.revision,
            "dtype": model.options.dtype,
            **{key: float(value) if key in {"guidance_scale", "strength"} else value for key, value in values.items()},
        }
        if self._job.encode.image in {"jpg", "avif"} or (
            self._job.encode.image == "webp" and not self._job.encode.lossless
        ):
            shared["encoder"] = {"image": self._job.encode.image, "quality": self._job.encode.quality}
        if self._job.determinism == "exact":
            shared["batch_size"] = model.options.batch_size
        holes = ["prompt", "negative_prompt", "seed", *(["images"] if row.images[1] else [])]
        steps = values["num_inference_steps"]
        if "strength" in values:
            steps = min(int(steps * values["strength"]), steps)
        return _Settings(
            **texts,
            model=name,
            row=row,
            num_outputs=num_outputs,
            holes=tuple(sorted(holes)),
            pieces=_pieces(shared, sorted(holes)),
            batch_key=hashlib.sha256(f"{name} {canonical(shared)}".encode()).hexdigest()[:16],
            cost_tflop=cost_tflop(
                model.family,
                parameters=model.parameters,
                height=values["height"],
                width=values["width"],
                num_frames=1,
                steps=steps,
                guided=values["guidance_scale"] > 1,
            ),
        )


def derived_seed(root: int, name: str) -> int:
    """Return the seed of a row that names none: the first 53 bits of sha256(root ":" name).

    Args:
        root: The job's seed.
        name: The row's `seed_group`, else its id.
    """
    digest = hashlib.sha256(f"{root}:{name}".encode()).digest()
    return int.from_bytes(digest[:8]) >> (64 - DERIVED_SEED_BITS)


def recipe_changes(old: str, new: str) -> list[str]:
    """Return the names in which two recipes differ, sorted."""
    before, after = json.loads(old), json.loads(new)
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _pieces(shared: dict[str, Any], holes: list[str]) -> tuple[str, ...]:
    """Return the recipe's text cut at its holes: len(holes) + 1 pieces, in canonical order."""
    pieces = ["{"]
    for index, name in enumerate(sorted([*shared, *holes])):
        pieces[-1] += ("," if index else "") + canonical(name) + ":"
        if name in _PER_ROW:
            pieces.append("")
        else:
            pieces[-1] += canonical(shared[name])
    pieces[-1] += "}"
    return tuple(pieces)


def _check_sources(row: TaskRow, values: tuple[Any, ...], wrong: list[_Wrong]) -> None:
    """A source the model would ignore is never accepted, and one it needs must be there."""
    images, *others = values
    count = len(_listed(images))
    least, most = row.images
    if not least <= count <= most:
        bound = f"{least}" if least == most else f"{least} to {most}"
        wrong.append(("images", images, f"has {count} source(s); the task takes {bound}"))
    for role, value in zip(SOURCE_ROLES[1:], others, strict=True):
        if value:
            wrong.append((role, value, "is a source the task would ignore"))


def _check_values(values: Mapping[str, Any]) -> list[_Wrong]:
    """Check what can be told without a model."""
    wrong: list[_Wrong] = []
    steps = values.get("num_inference_steps")
    if steps is not None and not 1 <= steps <= STEPS_MAX:
        wrong.append(("num_inference_steps", steps, f"is not in 1..{STEPS_MAX}"))
    guidance = values.get("guidance_scale")
    if guidance is not None and not 0 <= guidance <= GUIDANCE_MAX:  # NaN is not in the range either
        wrong.append(("guidance_scale", guidance, f"is not in 0..{GUIDANCE_MAX:g}"))
    if values.get("fit", "cover") not in {"cover", "contain"}:
        wrong.append(("fit", values["fit"], "is neither cover nor contain"))
    if "strength" in values:
        wrong.extend(_check_strength(values["strength"], steps or STEPS_MAX))
    return wrong


def _check_family(values: Mapping[str, Any], model: ModelInfo) -> list[_Wrong]:
    """Check what the model's family bounds: sizes and schedulers."""
    family = model.family
    wrong: list[_Wrong] = []
    for name in ("height", "width"):
        value = values[name]
        nearest = nearest_multiple(value, family.size_multiple, family.size_min, family.size_max)
        if value % family.size_multiple:
            wrong.append((name, value, f"is not a multiple of {family.size_multiple}; the nearest is {nearest}"))
        elif not family.size_min <= value <= family.size_max:
            wrong.append((name, value, f"is not in {family.size_min}..{family.size_max}"))
    if "scheduler" in values and values["scheduler"] not in family.schedulers:
        near = _near(values["scheduler"], family.schedulers)
        wrong.append(("scheduler", values["scheduler"], f"is no scheduler of {family.title}{near}"))
    return wrong


def _check_strength(strength: float, steps: int) -> list[_Wrong]:
    if not (math.isfinite(strength) and 0 < strength <= 1):
        return [("strength", strength, "is not over 0 and at most 1")]
    if steps >= 1 and int(steps * strength) < 1:
        return [("strength", strength, f"leaves no step of {steps}; at least {math.ceil(1e4 / steps) / 1e4} is needed")]
    return []


def _unserved(columns: Mapping[str, Sequence[Any]]) -> dict[int, list[_Wrong]]:
    """Refuse values in columns that no family of the table takes yet, rather than pass them over."""
    wrong: dict[int, list[_Wrong]] = {}
    for name in _LATER:
        for offset, value in enumerate(columns.get(name, ())):
            if value is not None:
                wrong.setdefault(offset, []).append((name, value, "is taken by no model family served so far"))
    return wrong


def _listed(value: Any) -> list[str]:
    """Return a source column's URLs: null and "" are none, a plain string is one."""
    if not value:
        return []
    return [value] if isinstance(value, str) else [url for url in value if url]


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _near(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else f" ({', '.join(known)})"
