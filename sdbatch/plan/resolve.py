"""Rows become requests: precedence, what the family can make, the recipe, its key.

    columns of rows + job + models --> Resolver.resolve() --> Resolved per row, and Faults

Rows differ mostly in prompt and seed; everything else is resolved once per distinct combination and remembered
(`_SettledGroup`). The rows of a batch that share one are resolved together, column by column, so that a million rows
cost seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import repeat
from json.encoder import encode_basestring
from typing import Any, NamedTuple

import numpy as np

from sdbatch.canonical import canonical
from sdbatch.checkpoints import LoraInfo, ModelInfo
from sdbatch.families import Given, Route, cost_tflop, is_clip
from sdbatch.job import Job
from sdbatch.plan.checks import (
    Wrong,
    check_family,
    check_route,
    check_values,
    lacking,
    near,
    nearest_route,
    settled_frames,
    settled_keyframes,
    settled_loras,
    settled_parameters,
)
from sdbatch.recipe import KEY_VERSION, SOURCE_ROLES, request_key
from sdbatch.types import SEED_MAX, TASKS, Source

DERIVED_SEED_BITS = 53
"""Derived seeds stay exact in JSON readers that know only doubles."""

NUM_OUTPUTS_MAX = 1024
SETTINGS_KEPT_MAX = 65_536
_LENGTHS = ("num_frames", "duration_s")
_ARGUMENTS = (
    "fit",
    "height",
    "width",
    *_LENGTHS,
    "fps",
    "num_inference_steps",
    "guidance_scale",
    "strength",
    "scheduler",
)
_LISTS = ("keyframes", "loras")
_TEXTS = ("id", "prompt", "negative_prompt")
_SETTINGS = ("task", "model", *_ARGUMENTS, *_LISTS, "parameters", "num_outputs")
_PER_ROW = frozenset({"prompt", "negative_prompt", "seed", *SOURCE_ROLES})
_FLOATS = frozenset({"guidance_scale", "strength", "fps"})
_NOTHING = Given()
Columns = Mapping[str, Sequence[Any]]
"""Known manifest columns as Python values; absent ones stand for null."""


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


class ResolvedRows(NamedTuple):
    """Rows with nothing left open, by columns. See `sdbatch.types.Request` for the shared fields.

    By columns, because a million rows pass: an object for each costs Python's garbage collector as much as its digest.

    Attributes:
        num_outputs: Assets each row asks for.
    """

    id: list[str]
    request_key: list[str]
    recipe: list[str]
    num_outputs: list[int]
    sources: list[tuple[Source, ...]]
    model: list[str]
    batch_key: list[str]
    cost_tflop: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _SettledGroup:
    """What all rows with the same settings share.

    Attributes:
        prompt: Default of the texts, as `negative_prompt`.
        holes: Names of a row's own values, as they follow in the recipe.
        template: The recipe, with `%s` where these go in canonical form.
        unread: Texts that the model does not read, and why not.
    """

    row: Route
    prompt: str | None
    negative_prompt: str
    model: str
    num_outputs: int
    holes: tuple[str, ...]
    template: str
    batch_key: str
    cost_tflop: float
    unread: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _RejectedGroup:
    """Settings nothing can be made with.

    Attributes:
        unread: As in `_SettledGroup`.
        misfits: What is wrong with the sources, (column, message) each: their values are the row's.
    """

    prompt: str | None
    wrong: tuple[Wrong, ...]
    unread: Mapping[str, str]
    misfits: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    """A task of a model, and the way in which what is given is served."""

    model: ModelInfo
    task: str
    route: Route
    given: Given
    misfits: tuple[tuple[str, str], ...]


class Resolver:
    """Resolves rows of one job.

    Args:
        job: The checked job.
        models: What `describe` found for each of the job's models.
        source_fault: Returns why a source URL may not be opened, None when it may.
        source_url: Makes a source absolute.
        loras: What `describe_lora` found for each of the job's LoRAs.
    """

    def __init__(
        self,
        job: Job,
        models: Mapping[str, ModelInfo],
        source_fault: Callable[[str], str | None],
        source_url: Callable[[str], str],
        loras: Mapping[str, LoraInfo] | None = None,
    ) -> None:
        self._job = job
        self._loras = loras or {}
        self._models = models
        self._source_fault = source_fault
        self._source_url = source_url
        self._kept: dict[tuple[Any, ...], _SettledGroup | _RejectedGroup] = {}

    def resolve(self, columns: Columns, num_rows: int, digests: Mapping[str, str]) -> tuple[ResolvedRows, list[Fault]]:
        """Resolve some rows.

        Args:
            columns: The rows'.
            num_rows: Their common length.
            digests: Content digest by source URL as `source_urls` gives them; one that is absent counts as `missing`.

        Returns:
            The rows that have no fault, and the faults; both in row order.
        """
        nulls: Sequence[Any] = [None] * num_rows
        own = {name: columns.get(name, nulls) for name in _TEXTS}
        own |= {name: columns[name] for name in SOURCE_ROLES if name in columns}
        own["seed"] = self._seeds(own["id"], columns.get("seed", nulls), columns.get("seed_group", nulls))
        made: list[tuple[Sequence[int], ResolvedRows]] = []
        faults: list[Fault] = []
        for settings, offsets in self._alike(columns, num_rows):
            rows = _picked(own, offsets)
            sources, misplaced = self._sources(rows, digests)
            wrong = [*_wrong_texts(settings, rows), *misplaced, *_wrong_settings(settings, rows)]
            faults.extend(Fault(offset=offsets[place], column=c, value=v, message=m) for place, (c, v, m) in wrong)
            if isinstance(settings, _RejectedGroup):
                continue
            bad = {place for place, _ in wrong}
            good = [place for place in range(len(offsets)) if place not in bad] if bad else range(len(offsets))
            found = self._made(settings, _picked(rows, good), [sources[place] for place in good])
            made.append(([offsets[place] for place in good], found))
        return _in_row_order(made), sorted(faults, key=lambda fault: fault.offset)

    def source_urls(self, columns: Mapping[str, Sequence[Any]]) -> set[str]:
        """Return every source of some rows that may be opened, absolute."""
        urls: set[str] = set()
        for role in SOURCE_ROLES:
            for value in columns.get(role, ()):
                urls.update(self._source_url(url) for url in _listed(value) if self._source_fault(url) is None)
        return urls

    def _alike(self, columns: Columns, num_rows: int) -> Iterator[tuple[_SettledGroup | _RejectedGroup, Sequence[int]]]:
        """Yield the settings of some rows, each with the offsets of the rows that share it."""
        names = [name for name in _SETTINGS if name in columns and columns[name].count(None) < num_rows]
        values = [_hashable(columns[name]) if name in _LISTS else columns[name] for name in names]
        has_sources = not columns.keys().isdisjoint(SOURCE_ROLES)
        if not names and not has_sources:
            yield self._remembered(dict.fromkeys(_SETTINGS), _NOTHING), range(num_rows)
            return
        given: Iterable[Given] = repeat(_NOTHING, num_rows)
        if has_sources:
            nulls = [None] * num_rows
            given = map(_given, zip(*(columns.get(role, nulls) for role in SOURCE_ROLES), strict=True))
        alike: dict[tuple[Any, ...], list[int]] = {}
        for offset, key in enumerate(zip(given, *values, strict=True)):
            alike.setdefault(key, []).append(offset)
        for (found, *own), offsets in alike.items():
            yield self._remembered(dict.fromkeys(_SETTINGS) | dict(zip(names, own, strict=True)), found), offsets

    def _remembered(self, row: dict[str, Any], given: Given) -> _SettledGroup | _RejectedGroup:
        place = (*row.values(), given)
        settings = self._kept.get(place)
        if settings is None:
            if len(self._kept) >= SETTINGS_KEPT_MAX:
                self._kept.clear()
            settings = self._kept[place] = self._settings(row, given)
        return settings

    def _made(self, settings: _SettledGroup, rows: Columns, sources: list[tuple[Source, ...]]) -> ResolvedRows:
        """Return rows that share their settings and have no fault."""
        ids, prompts, negatives = (rows[name] for name in _TEXTS)
        negatives = [settings.negative_prompt if text is None else text for text in negatives]
        own: dict[str, Iterable[str]] = {
            "prompt": (canonical(settings.prompt) if text is None else encode_basestring(text) for text in prompts),
            "negative_prompt": map(encode_basestring, negatives),
            "seed": map(canonical, rows["seed"]),
        }
        if roles := [name for name in settings.holes if name in SOURCE_ROLES]:
            contents = [_contents(found) for found in sources]
            own |= {role: [canonical(content[role]) for content in contents] for role in roles}
        recipes = list(map(settings.template.__mod__, zip(*(own[name] for name in settings.holes), strict=True)))
        return ResolvedRows(
            id=list(ids),
            request_key=list(map(request_key, recipes)),
            recipe=recipes,
            num_outputs=[settings.num_outputs] * len(ids),
            sources=sources,
            model=[settings.model] * len(ids),
            batch_key=_batch_keys(settings, negatives, sources),
            cost_tflop=[settings.cost_tflop] * len(ids),
        )

    def _seeds(self, ids: Sequence[str], seeds: Sequence[int | None], groups: Sequence[str | None]) -> list[int]:
        """Return each row's seed: its own, else one derived from its `seed_group`, else from its id."""
        names = [group or row_id for row_id, seed, group in zip(ids, seeds, groups, strict=True) if seed is None]
        derived = iter(derived_seeds(self._job.seed, names))
        return [next(derived) if seed is None else seed for seed in seeds]

    def _sources(
        self, rows: Columns, digests: Mapping[str, str]
    ) -> tuple[list[tuple[Source, ...]], list[tuple[int, Wrong]]]:
        """Return the sources of each row, and what is wrong with them, by place."""
        roles = [role for role in SOURCE_ROLES if role in rows]
        found: list[tuple[Source, ...]] = [()] * len(rows["id"])
        wrong: list[tuple[int, Wrong]] = []
        for place in range(len(found)) if roles else ():
            faults: list[Wrong] = []
            urls = ((role, url) for role in roles for url in _listed(rows[role][place]))
            found[place] = tuple(self._source(role, url, digests, faults) for role, url in urls)
            wrong.extend((place, fault) for fault in faults)
        return found, wrong

    def _source(self, role: str, url: str, digests: Mapping[str, str], wrong: list[Wrong]) -> Source:
        if fault := self._source_fault(url):
            wrong.append((role, url, fault))
            return Source(role=role, url=url, digest="missing")
        absolute = self._source_url(url)
        return Source(role=role, url=absolute, digest=digests.get(absolute, "missing"))

    def _layers(self, row: Mapping[str, Any], model: str | None) -> list[Mapping[str, Any]]:
        """Return what settles a value, nearest first: the row, its model's defaults, the job's."""
        options = self._job.models.get(model or "")
        return [row, *([dict(options.defaults)] if options else []), dict(self._job.defaults)]

    def _only_model(self) -> str | None:
        return next(iter(self._job.models)) if len(self._job.models) == 1 else None

    def _settings(self, row: dict[str, Any], given: Given) -> _SettledGroup | _RejectedGroup:
        """Resolve one combination of settings, or say what is wrong with it."""
        name: str | None = row["model"] or self._job.defaults.model or self._only_model()
        layers = self._layers(row, name)
        task = _settled("task", layers)
        num_outputs = _settled("num_outputs", layers, 1)
        wrong: list[Wrong] = []
        if not 1 <= num_outputs <= NUM_OUTPUTS_MAX:
            wrong.append(("num_outputs", num_outputs, f"is not in 1..{NUM_OUTPUTS_MAX}"))
        prompt = _settled("prompt", layers)
        negative = _settled("negative_prompt", layers, "")
        unbound = self._check_binding(name, task)
        if unbound or name is None:
            own = {column: row[column] for column in _ARGUMENTS if row[column] is not None}
            wrong += [*unbound, *check_values(own)]
            return _RejectedGroup(prompt=prompt, unread={}, wrong=tuple(wrong))
        bound = self._bound(name, task, given._replace(keyframes=bool(row["keyframes"])))
        values = self._values(bound, layers, wrong)
        unread = _unread(bound.route, values.get("parameters", {}))
        if wrong or bound.misfits:
            return _RejectedGroup(prompt=prompt, unread=unread, wrong=tuple(wrong), misfits=bound.misfits)
        return self._assembled(bound, num_outputs, values, prompt, negative, unread)

    def _bound(self, name: str, task: str, given: Given) -> _Bound:
        model = self._models[name]
        route, misfits = nearest_route(model.family.tasks[task], given)
        return _Bound(model=model, task=task, route=route, given=given, misfits=tuple(misfits))

    def _check_binding(self, name: Any, task: Any) -> list[Wrong]:
        """Check that model and task are there, and that the one serves the other."""
        wrong: list[Wrong] = []
        if name is None:
            wrong.append(("model", None, f"is missing and has no default; the job has {', '.join(self._job.models)}"))
        elif name not in self._models:
            wrong.append(("model", name, f"is not in the job's models{near(name, self._models)}"))
        if task not in TASKS:
            problem = "is missing and has no default" if task is None else f"is no task{near(task, TASKS)}"
            wrong.append(("task", task, problem))
        return wrong or _check_served(self._models[name], task)

    def _values(self, bound: _Bound, layers: list[Mapping[str, Any]], wrong: list[Wrong]) -> dict[str, Any]:
        """Settle everything but texts, seed and sources, checked against the family."""
        route, family, row = bound.route, bound.model.family, layers[0]
        values = self._arguments(bound, layers, wrong)
        wrong.extend(check_route(route, bound.task, bound.model, values))
        faults = check_values(values)
        if not faults:
            settled_frames(values, family)
        wrong.extend([*faults, *check_family(values, family)])
        if route.keyframes and bound.given.num_images and not wrong:
            values["keyframes"], faults = settled_keyframes(
                row["keyframes"], bound.given.num_images, values["num_frames"], route, family.frame_multiple
            )
            wrong.extend(faults)
        parameters, faults = settled_parameters(row["parameters"], route, bound.task)
        wrong.extend(faults)
        if parameters:
            values["parameters"] = parameters
        if row["loras"] and "loras" not in route.arguments:
            wrong.append(("loras", row["loras"], f"are not taken by {bound.task} of {family.title}"))
        elif row["loras"]:
            values["loras"], faults = settled_loras(row["loras"], self._loras, family)
            wrong.extend(faults)
        return values

    def _arguments(self, bound: _Bound, layers: list[Mapping[str, Any]], wrong: list[Wrong]) -> dict[str, Any]:
        """Settle the task's arguments: row, model's defaults, job's defaults, family's."""
        row, family = layers[0], bound.model.family
        size = {"height": bound.model.height, "width": bound.model.width}
        last = {"fit": "cover", **family.defaults, **bound.model.defaults, **size, **bound.route.defaults}
        # Frames or seconds: the nearest layer that says either counts.
        lengths = next((found for layer in layers if (found := _lengths(layer))), {})
        values: dict[str, Any] = {}
        for name in _ARGUMENTS:
            if name in bound.route.arguments:
                value = _settled(name, [lengths] if name in _LENGTHS else layers, last.get(name))
                if value is not None and value != "":
                    values[name] = value
            elif row[name] is not None:
                wrong.append((name, row[name], f"is not taken by {bound.task} of {family.title}"))
        if len(lengths) == 2:
            wrong.append(("duration_s", lengths["duration_s"], "stands beside num_frames; only one of them can be met"))
        elif "duration_s" in values:
            del values["num_frames"]
        return values

    def _assembled(
        self,
        bound: _Bound,
        num_outputs: int,
        values: dict[str, Any],
        prompt: str | None,
        negative_prompt: str,
        unread: Mapping[str, str],
    ) -> _SettledGroup:
        model, route = bound.model, bound.route
        shared = {
            "key_version": KEY_VERSION,
            "task": bound.task,
            "model": model.revision,
            "dtype": model.options.dtype,
            **{key: float(value) if key in _FLOATS else value for key, value in values.items()},
            **self._encoder(bound.task),
        }
        is_exact = self._job.determinism == "exact"
        # Compiled or in another memory format, the last bits are others: nothing to see, but not exact either.
        if accelerators := model.options.accelerators if is_exact else model.options.lossy:
            shared["accelerators"] = accelerators
        if is_exact:
            shared["batch_size"] = 1 if route.batch_of_one_in_exact else model.options.batch_size
        texts = [name for name in ("prompt", "negative_prompt") if name not in unread]
        holes = sorted(["seed", *texts, *(["images"] if bound.given.num_images else []), *bound.given.others])
        steps = values["num_inference_steps"]
        if "strength" in values:
            steps = min(int(steps * values["strength"]), steps)
        guidance = values.get("guidance_scale", 1.0)
        if route.negative_needs:
            guidance = values.get("parameters", {}).get(route.negative_needs, 1.0)
        together = {**shared, "guidance_scale": guidance > 1} if route.per_row_guidance else shared
        return _SettledGroup(
            row=route,
            prompt=prompt,
            negative_prompt=negative_prompt,
            unread=unread,
            model=model.name,
            num_outputs=num_outputs,
            holes=tuple(holes),
            template=_template(shared, holes),
            batch_key=_batch_key(model.name, together),
            cost_tflop=cost_tflop(
                model.family,
                parameters=model.parameters,
                height=values["height"],
                width=values["width"],
                num_frames=values.get("num_frames", 1),
                steps=steps,
                guided=guidance > 1,
            ),
        )

    def _encoder(self, task: str) -> dict[str, Any]:
        """Return what the recipe says of an encoder that changes pixels."""
        encode = self._job.encode
        if is_clip(task):
            return {"encoder": {"video": encode.video, "crf": encode.crf}}
        if encode.image in {"jpg", "avif"} or (encode.image == "webp" and not encode.lossless):
            return {"encoder": {"image": encode.image, "quality": encode.quality}}
        return {}


def _check_served(model: ModelInfo, task: str) -> list[Wrong]:
    """Check that there is a way of making a task with the folders that the model's entry names."""
    family = model.family
    reasons = {name: [lacking(route, model) for route in routes] for name, routes in family.tasks.items()}
    served = [name for name, of_routes in reasons.items() if not all(of_routes)]
    if task in served:
        return []
    hint = f"; it {min(reasons[task], key=len)[0]}" if task in reasons else ""
    return [("task", task, f"is not served by {model.name} ({family.title}: {', '.join(served)}){hint}")]


def derived_seeds(root: int, names: Iterable[str]) -> list[int]:
    """Return the seeds of rows that name none: the first 53 bits of sha256(root ":" name) each.

    Args:
        root: The job's seed.
        names: Each row's `seed_group`, else its id.
    """
    digests = b"".join([hashlib.sha256(f"{root}:{name}".encode()).digest() for name in names])
    seeds: list[int] = (np.frombuffer(digests, ">u8")[::4] >> (64 - DERIVED_SEED_BITS)).tolist()
    return seeds


def recipe_changes(old: str, new: str) -> list[str]:
    """Return the names in which two recipes differ, sorted."""
    before, after = json.loads(old), json.loads(new)
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _batch_key(of: str, together: Mapping[str, Any]) -> str:
    """Return a digest of a model or a wider batch key, and of what the rows of a call have in common."""
    return hashlib.sha256(f"{of} {canonical(together)}".encode()).hexdigest()[:16]


def _batch_keys(
    settings: _SettledGroup, negative_prompts: Sequence[str], sources: Sequence[tuple[Source, ...]]
) -> list[str]:
    """Return the batch key of each row: its settings', and what of the row itself a call must have in common."""
    route = settings.row
    if route.rows != "shared" and not route.empty_negative_differs:
        return [settings.batch_key] * len(sources)
    narrowed = cache(partial(_narrowed, settings.batch_key))
    return [
        narrowed(
            found if route.rows == "shared" else (), lacks_negative=route.empty_negative_differs and not negative_prompt
        )
        for negative_prompt, found in zip(negative_prompts, sources, strict=True)
    ]


def _narrowed(batch_key: str, sources: tuple[Source, ...], *, lacks_negative: bool) -> str:
    if sources:
        batch_key = _batch_key(batch_key, _contents(sources))
    if lacks_negative:
        batch_key = _batch_key(batch_key, {"negative_prompt": None})
    return batch_key


def _template(shared: dict[str, Any], holes: list[str]) -> str:
    """Return the recipe's text, in canonical order, with `%s` for each hole."""
    values = {name: canonical(value).replace("%", "%%") for name, value in shared.items() if name not in _PER_ROW}
    values |= dict.fromkeys(holes, "%s")
    return "{" + ",".join(f"{canonical(name)}:{values[name]}" for name in sorted(values)) + "}"


def _picked(columns: Columns, offsets: Sequence[int]) -> Columns:
    """Return some rows of some columns."""
    if len(offsets) == len(columns["id"]):
        return columns
    return {name: [values[offset] for offset in offsets] for name, values in columns.items()}


def _in_row_order(made: Sequence[tuple[Sequence[int], ResolvedRows]]) -> ResolvedRows:
    """Return rows that were resolved by settings, with the offset of each, in the order they came in."""
    if len(made) == 1:
        return made[0][1]
    offsets = [offset for group, _ in made for offset in group]
    order = sorted(range(len(offsets)), key=offsets.__getitem__)
    columns = [[value for _, rows in made for value in rows[number]] for number in range(len(ResolvedRows._fields))]
    return ResolvedRows._make([column[place] for place in order] for column in columns)


def _wrong_texts(settings: _SettledGroup | _RejectedGroup, rows: Columns) -> Iterator[tuple[int, Wrong]]:
    """Yield (place, what is wrong) of texts and seeds."""
    for name, why in settings.unread.items():
        yield from ((place, (name, text, why)) for place, text in enumerate(rows[name]) if text)
    if settings.prompt is None and "prompt" not in settings.unread:
        message = "is missing and has no default; an empty text is a legal prompt"
        yield from ((place, ("prompt", None, message)) for place, text in enumerate(rows["prompt"]) if text is None)
    for place, seed in enumerate(rows["seed"]):
        if not 0 <= seed <= SEED_MAX:
            yield place, ("seed", seed, f"is not in 0..{SEED_MAX}")


def _wrong_settings(settings: _SettledGroup | _RejectedGroup, rows: Columns) -> Iterator[tuple[int, Wrong]]:
    """Yield (place, what is wrong) of settings nothing can be made with: the same for all of these rows."""
    if isinstance(settings, _RejectedGroup):
        for place in range(len(rows["id"])):
            for column, message in settings.misfits:
                yield (
                    place,
                    (column, rows[column][place] if column in SOURCE_ROLES and column in rows else None, message),
                )
            yield from ((place, fault) for fault in settings.wrong)


def _given(urls: tuple[Any, ...]) -> Given:
    images, *others = urls
    return Given(
        len(_listed(images)), frozenset(role for role, url in zip(SOURCE_ROLES[1:], others, strict=True) if url)
    )


def _contents(sources: Iterable[Source]) -> dict[str, Any]:
    """Return digests by role: a list of images, one of anything else."""
    contents: dict[str, Any] = {}
    for source in sources:
        if source.role == "images":
            contents.setdefault("images", []).append(source.digest)
        else:
            contents[source.role] = source.digest
    return contents


def _hashable(column: Sequence[Any]) -> list[Any]:
    """Return lists as tuples, a LoRA as (name, weight); empty ones as null."""
    return [
        tuple((item["name"], item["weight"]) if isinstance(item, dict) else item for item in value) if value else None
        for value in column
    ]


def _listed(value: Any) -> list[str]:
    """Return a source column's URLs: null and "" are none, a plain string is one."""
    if not value:
        return []
    return [value] if isinstance(value, str) else [url for url in value if url]


def _unread(route: Route, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts that a way does not read, and why not."""
    unread = {
        name: "is not read by this model" for name in ("prompt", "negative_prompt") if name not in route.arguments
    }
    if route.negative_needs and not parameters.get(route.negative_needs, 1.0) > 1:
        unread["negative_prompt"] = f"is read by this model only with {route.negative_needs} over 1 in parameters"
    return unread


def _lengths(layer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: layer[name] for name in _LENGTHS if layer[name] is not None}


def _settled(name: str, layers: Iterable[Mapping[str, Any]], last: Any = None) -> Any:
    """Return the value of the nearest layer that has one."""
    return next((layer[name] for layer in layers if layer.get(name) is not None), last)
