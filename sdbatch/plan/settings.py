"""Settles what rows of the same settings share: values by precedence, the route, the recipe's shared part, the cost.

    settings of a row + what it gives --> Settler.settle() --> SettledGroup, or RejectedGroup with its problems

Rows differ mostly in prompt and seed, so each distinct combination is settled once and remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sdbatch.checkpoints import LoraInfo, ModelInfo, loras_problem
from sdbatch.columns import IN_RECIPE, MANIFEST, named
from sdbatch.families import Given, Route, cost_tflop
from sdbatch.families.peaks import OutputSize
from sdbatch.hints import near
from sdbatch.job import Job
from sdbatch.plan.batch_key import batch_key
from sdbatch.plan.checks import (
    check_family,
    check_route,
    check_values,
    lacking,
    nearest_route,
    settled_frames,
    settled_keyframes,
    settled_loras,
    settled_parameters,
)
from sdbatch.plan.control_checks import check_counts, check_modes
from sdbatch.plan.problems import RowProblem
from sdbatch.plan.schedulers import check_own, check_shift, settled_scheduler
from sdbatch.plan.shape import shape_text
from sdbatch.plan.texts import TextUses, reader_of, settled_texts
from sdbatch.recipe import KEY_VERSION, RecipeTemplate
from sdbatch.types import TASKS

SETTINGS_KEPT_MAX = 65_536
SETTINGS = named("binding", "argument", "list", "setting")
"""Columns in which the rows of a group are alike."""

_ARGUMENTS = named("argument")
_TEXTS = named("text")
_LENGTHS = ("num_frames", "duration_s")
_SIZE = ("height", "width")
_FLOATS = frozenset(name for name, column in IN_RECIPE.items() if pa.types.is_floating(column.type))
_NO_USES: TextUses = (None,) * len(_TEXTS)
_LAST = {name: column.default for name, column in MANIFEST.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledGroup:
    """The values that all rows with the same settings share.

    Attributes:
        route: How the family serves them.
        texts: Text of a row that has none, by column; None where a row must have one.
        unread: Texts that the model does not read, and why not.
        model: Name in the job's `models`.
        num_outputs: Assets that each row asks for.
        recipe: Writes the recipe from a row's own values.
        batch_key: Equal for groups that may share a call.
        cost_tflop: Predicted work of one output.
        shape: See `sdbatch.types.Request`.
    """

    route: Route
    texts: Mapping[str, str | None]
    unread: Mapping[str, str]
    model: str
    num_outputs: int
    recipe: RecipeTemplate
    batch_key: str
    cost_tflop: float
    shape: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedGroup:
    """Settings nothing can be made with.

    Attributes:
        texts: As in `SettledGroup`.
        unread: As in `SettledGroup`.
        problems: The same for every row with these settings.
    """

    texts: Mapping[str, str | None]
    unread: Mapping[str, str]
    problems: tuple[RowProblem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Binding:
    """A task of a model, and the route that what is given fits best."""

    model: ModelInfo
    task: str
    route: Route
    given: Given


class Settler:
    """Settles the settings of one job's rows.

    Attributes:
        sizes: Sizes of what was settled, by model.
        reader: Reads the texts of rows; None where no model of the job asks for it.

    Args:
        job: The checked job.
        models: Description of each of the job's models.
        loras: Description of each of the job's LoRAs.
        loads_here: Whether this machine's Python packages are those that load the models.
    """

    def __init__(
        self, job: Job, models: Mapping[str, ModelInfo], loras: Mapping[str, LoraInfo], *, loads_here: bool = True
    ) -> None:
        self._loads_here = loads_here
        self._job = job
        self._models = models
        self._loras = loras
        self.reader = reader_of(job)
        self.sizes: dict[str, set[OutputSize]] = {}
        self._kept: dict[tuple[Any, ...], SettledGroup | RejectedGroup] = {}

    def settle(self, row: Mapping[str, Any], given: Given, uses: TextUses = _NO_USES) -> SettledGroup | RejectedGroup:
        """Return the group of some settings.

        Args:
            row: Value by each of `SETTINGS`, None where the rows have none; lists as tuples.
            given: The sources that the rows give.
            uses: What the rows' own texts hold, where the job asks for it.
        """
        place = (*row.values(), given, uses)
        group = self._kept.get(place)
        if group is None:
            if len(self._kept) >= SETTINGS_KEPT_MAX:
                self._kept.clear()
            group = self._kept[place] = self._settled(row, given, uses)
        return group

    def _settled(self, row: Mapping[str, Any], given: Given, uses: TextUses) -> SettledGroup | RejectedGroup:
        name: str | None = row["model"] or self._job.defaults.model or self._only_model()
        layers = self._layers(row, name)
        task = _nearest("task", layers)
        texts = {text: _nearest(text, layers, _LAST[text]) for text in _TEXTS}
        num_outputs = _nearest("num_outputs", layers, _LAST["num_outputs"])
        problems: list[RowProblem] = []
        if message := MANIFEST["num_outputs"].problem(num_outputs):
            problems.append(RowProblem("num_outputs", num_outputs, message))
        unbound = self._check_binding(name, task)
        if unbound or name is None:
            own = {column: row[column] for column in _ARGUMENTS if row[column] is not None}
            return RejectedGroup(texts=texts, unread={}, problems=(*problems, *unbound, *check_values(own)))
        model = self._models[name]
        given = given._replace(keyframes=bool(row["keyframes"]))
        route, misplaced = nearest_route(model.family.tasks[task], given, model)
        binding = _Binding(model=model, task=task, route=route, given=given)
        values = self._values(binding, layers, problems)
        parameters = values.get("parameters", {})
        encoding, refused = settled_texts(
            uses, texts, self.reader, model, route, parameters, loads_here=self._loads_here
        )
        values |= encoding
        problems.extend(refused)
        unread = _unread(route, parameters)
        if problems or misplaced:
            return RejectedGroup(texts=texts, unread=unread, problems=(*misplaced, *problems))
        return self._group(binding, values, texts, unread, num_outputs)

    def _layers(self, row: Mapping[str, Any], model: str | None) -> list[Mapping[str, Any]]:
        """Return what settles a value, nearest first: the row, its model's defaults, the job's."""
        options = self._job.models.get(model or "")
        return [row, *([dict(options.defaults)] if options else []), dict(self._job.defaults)]

    def _only_model(self) -> str | None:
        return next(iter(self._job.models)) if len(self._job.models) == 1 else None

    def _check_binding(self, name: Any, task: Any) -> list[RowProblem]:
        """Check that model and task are there, and that the one serves the other."""
        problems: list[RowProblem] = []
        if name is None:
            message = f"is missing and has no default; the job has {', '.join(self._job.models)}"
            problems.append(RowProblem("model", None, message))
        elif name not in self._models:
            problems.append(RowProblem("model", name, f"is not in the job's models{near(name, self._models)}"))
        if task not in TASKS:
            missing = f"is missing and has no default; defaults.task of the job sets it: {', '.join(TASKS)}"
            message = missing if task is None else f"is not a task{near(task, TASKS)}"
            problems.append(RowProblem("task", task, message))
        return problems or _check_served(self._models[name], task, loads_here=self._loads_here)

    def _values(self, binding: _Binding, layers: list[Mapping[str, Any]], problems: list[RowProblem]) -> dict[str, Any]:
        """Settle everything but texts, seed and sources, checked against the family."""
        route, family, row = binding.route, binding.model.family, layers[0]
        values = self._arguments(binding, layers, problems)
        problems.extend(
            check_route(route, binding.task, binding.model, values, binding.given, loads_here=self._loads_here)
        )
        problems.extend(check_counts(route, binding.given, binding.model, row["ip_adapter_scale"]))
        out_of_bounds = check_values(values)
        if not out_of_bounds:
            settled_frames(values, family)
        problems.extend([*out_of_bounds, *check_family(values, family)])
        problems.extend(
            settled_scheduler(values, binding.model, loads_here=self._loads_here)
            or check_own(values, route, binding.model, loads_here=self._loads_here)
            or check_shift(values, route, binding.model)
        )
        if route.keyframes and binding.given.num_images and not problems:
            values["keyframes"], refused = settled_keyframes(
                row["keyframes"], binding.given.num_images, values["num_frames"], route, family.frame_multiple
            )
            problems.extend(refused)
        parameters, refused = settled_parameters(row["parameters"], route, binding.task, binding.given.num_controls)
        problems.extend(refused or check_modes(route, binding.given, binding.model, parameters, row["parameters"]))
        if parameters:
            values["parameters"] = parameters
        if row["loras"] and "loras" not in route.arguments:
            problems.append(RowProblem("loras", row["loras"], f"are not taken by {binding.task} of {family.title}"))
        elif row["loras"] and (problem := loras_problem(family, binding.model.quantized_by)):
            problems.append(RowProblem("loras", row["loras"], problem))
        elif row["loras"]:
            values["loras"], refused = settled_loras(row["loras"], self._loras, family, loads_here=self._loads_here)
            problems.extend(refused)
        return values

    def _arguments(
        self, binding: _Binding, layers: list[Mapping[str, Any]], problems: list[RowProblem]
    ) -> dict[str, Any]:
        """Settle the task's arguments: row, model's defaults, job's defaults, family's."""
        row, model, route = layers[0], binding.model, binding.route
        size = {"height": model.height, "width": model.width}
        last = {**_LAST, **model.family.defaults, **model.defaults, **size, **route.defaults}
        # Frames or seconds: the nearest layer that says either counts.
        lengths = next((of_layer for layer in layers if (of_layer := _lengths(layer))), {})
        values: dict[str, Any] = {}
        for name in _ARGUMENTS:
            if name == "ip_adapter_scale" and name in route.arguments and not binding.given.num_references:
                continue  # a default of it is for the rows with reference pictures
            if name in _SIZE and route.enlarges > 1:
                if row[name] is not None:  # a default is for rows whose size the source does not settle
                    values[name] = row[name]
            elif name in route.arguments:
                value = _nearest(name, [lengths] if name in _LENGTHS else layers, last.get(name))
                if value is not None and value != MANIFEST[name].neutral:
                    values[name] = value
            elif row[name] is not None:
                message = f"is not taken by {binding.task} of {model.family.title}"
                problems.append(RowProblem(name, row[name], message))
        if route.enlarges > 1 and len(values.keys() & set(_SIZE)) == 1:
            (name,) = values.keys() & set(_SIZE)
            message = "stands alone; say both height and width, or neither: they follow from the source"
            problems.append(RowProblem(name, values[name], message))
        if len(lengths) == 2:
            message = "stands beside num_frames; only one of them can be met"
            problems.append(RowProblem("duration_s", lengths["duration_s"], message))
        elif "duration_s" in values:
            del values["num_frames"]
        return values

    def _group(
        self,
        binding: _Binding,
        values: dict[str, Any],
        texts: Mapping[str, str | None],
        unread: Mapping[str, str],
        num_outputs: int,
    ) -> SettledGroup:
        model, route, given = binding.model, binding.route, binding.given
        shared = self._shared(binding, values)
        own = ["seed", *(name for name in _TEXTS if name not in unread), *given.others]
        guidance = 1.0 if route.guidance_is_distilled else values.get("guidance_scale", 1.0)
        if route.negative_needs:
            guidance = values.get("parameters", {}).get(route.negative_needs, 1.0)
        height, width = values.get("height", model.height), values.get("width", model.width)
        size = OutputSize(height, width, values.get("num_frames", 1), guidance > 1)
        self.sizes.setdefault(model.name, set()).add(size)
        together = {**shared, "guidance_scale": guidance > 1} if route.per_row_guidance else shared
        steps = _steps_made(values)
        rows = 1 if route.rows == "single" else shared.get("batch_size", model.options.batch_size)
        counts = {"num_controls": given.num_controls, "num_references": given.num_references}
        together = {**together, **{name: count for name, count in counts.items() if count > 1}}
        return SettledGroup(
            route=route,
            texts=texts,
            unread=unread,
            model=model.name,
            num_outputs=num_outputs,
            recipe=RecipeTemplate(shared, [*own, "images"] if given.num_images else own),
            batch_key=batch_key(model.name, together),
            cost_tflop=cost_tflop(
                model.family,
                parameters=model.parameters,
                height=height,
                width=width,
                num_frames=values.get("num_frames", 1),
                steps=steps,
                guided=guidance > 1,
            ),
            shape=shape_text(
                binding.task, size, steps=steps, batch_size=rows, scheduler=values.get("scheduler") or "", **counts
            ),
        )

    def _shared(self, binding: _Binding, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of the recipe that all rows of a group share."""
        model, route = binding.model, binding.route
        shared = {
            "key_version": KEY_VERSION,
            "task": binding.task,
            "route": route.name,
            "route_version": route.version,
            "model": model.base_revision or model.revision,
            "components": {
                name: model.component_revisions[name] for name in (*_used(binding), *model.always_laid_over)
            },
            "dtype": model.options.dtype,
            **{name: float(value) if name in _FLOATS else value for name, value in values.items()},
        }
        is_exact = self._job.determinism == "exact"
        # Compiled or in another memory format, the last bits are others: nothing to see, but not exact either.
        accelerators = model.options.accelerators if is_exact else model.options.lossy
        # A size that follows from the source is not known here; what is tiled for it follows from the source as well.
        height, width, num_frames = values.get("height", 0), values.get("width", 0), values.get("num_frames", 1)
        if model.family.is_tiled(model.options.vae.tiling, height=height, width=width, num_frames=num_frames):
            accelerators["vae"] = {**accelerators.get("vae", {}), "tiling": True}
        if accelerators:
            shared["accelerators"] = accelerators
        if self._job.watermark is not None:
            shared["watermark"] = self._job.watermark.identity
        if is_exact:
            shared["batch_size"] = 1 if route.batch_of_one_in_exact else model.options.batch_size
        return shared


def _used(binding: _Binding) -> list[str]:
    """Return the names of the components that a route is called with, beside those of every call."""
    needed = binding.route.components_for(binding.given)
    return [name for component in needed for name in binding.model.named(component)]


def _check_served(model: ModelInfo, task: str, *, loads_here: bool) -> list[RowProblem]:
    """Check that the folders that the model's entry names allow a route of a task."""
    family = model.family
    reasons = {
        name: [lacking(route, model, loads_here=loads_here) for route in routes]
        for name, routes in family.tasks.items()
    }
    served = [name for name, of_routes in reasons.items() if not all(of_routes)]
    if task in served:
        return []
    hint = f"; it {min(reasons[task], key=len)[0]}" if task in reasons else ""
    message = f"is not served by {model.name} ({family.title}: {', '.join(served)}){hint}"
    return [RowProblem("task", task, message)]


def _steps_made(values: Mapping[str, Any]) -> int:
    """Return the denoising steps that are really made: `strength` leaves some out."""
    steps: int = values["num_inference_steps"]
    return min(int(steps * values["strength"]), steps) if "strength" in values else steps


def _unread(route: Route, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts that a route does not read, and why not."""
    unread = {name: "is not read by this model" for name in _TEXTS if not route.reads(name, parameters)}
    if "negative_prompt" in unread and route.negative_needs:
        unread["negative_prompt"] = f"is read by this model only with {route.negative_needs} over 1 in parameters"
    return unread


def _lengths(layer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: layer[name] for name in _LENGTHS if layer[name] is not None}


def _nearest(name: str, layers: Iterable[Mapping[str, Any]], last: Any = None) -> Any:
    """Return the value of the nearest layer that has one."""
    return next((layer[name] for layer in layers if layer.get(name) is not None), last)
