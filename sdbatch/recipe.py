"""The recipe: everything that decides the pixels of one request, typed; the only place that parses or writes one.

    settled values --> RecipeTemplate --> canonical JSON --> request key (its sha256)
                                          canonical JSON --> parse_recipe() --> Recipe

A field at its neutral value is not written, so that a new option never moves an older key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence, Sized
from dataclasses import MISSING, dataclass, field, fields
from functools import lru_cache
from itertools import repeat
from json.encoder import encode_basestring
from operator import attrgetter
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from sdbatch.canonical import are_plain_integers, are_plain_texts, canonical
from sdbatch.columns import AS_IN_RECIPE, IN_RECIPE, LISTED_ROLES, SOURCE_ROLES, named
from sdbatch.errors import UserError

KEY_VERSION: Final = 2
"""Part of every key; raised when equal recipes would no longer give equal pixels. Older recipes remain readable."""

KEY_DIGITS: Final = 64
"""Hex digits of a request key."""

_TEXTS: Final = frozenset(named("text"))
PER_ROW: Final = frozenset({*_TEXTS, "seed", *SOURCE_ROLES})
"""Names whose values differ row by row; every other one is shared by a group of rows."""

_GAP: Final = "\0"
"""Stands in a template where a row's own value goes; canonical JSON never holds it."""

_TUPLES: Final = frozenset({*LISTED_ROLES, "keyframes"})
_OF_OLDER_VERSIONS: Final = frozenset({"encoder"})
"""Names that key version 1 wrote and that decide nothing any more: how a master is stored is recorded, not keyed."""

NEUTRAL: Final[Mapping[str, Any]] = {
    "route_version": 1,
    **{name: column.neutral for name, column in IN_RECIPE.items() if column.neutral is not None},
}
"""Values that mean the same as no value, for ever. They are not written, so that a new option moves no older key."""


def is_clip(task: str) -> bool:
    """Whether a task makes a clip, not a picture."""
    return task.endswith("-to-video")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The values that a pipeline call is given for one request.

    Fields have diffusers' names and are None where a task has none. Without slots, since one that is read from JSON
    holds its own values alone, and those of the class for all others: a unit has a thousand recipes.

    Attributes:
        key_version: Form of the recipe.
        task: By its Hugging Face name.
        route: Name of the family's route that serves it; "" in key version 1, which did not say.
        route_version: Version of the route's call.
        model: Content identity of the model folder; in key version 1 of further folders as well.
        components: Content identity of each further folder that the route uses, by its key in the job.
        dtype: Numbers the model is run in.
        seed: Seed of output 0; see `output_seed`.
        height: Pixels; 0 where it follows from the source, which a route enlarges.
        width: As `height`.
        num_inference_steps: Denoising steps asked for.
        prompt: None where the model reads none.
        negative_prompt: None where there is none or the model reads none; key version 1 wrote "" for none.
        guidance_scale: None where the route takes none.
        strength: Share of the steps that an image-to-image route makes, over 0 and at most 1.
        scheduler: diffusers class; "" for the model's own.
        fit: How a source meets the size, `cover` or `contain`; None without sources.
        num_frames: Frames the pipeline makes; None for a picture.
        num_frames_kept: Frames that are kept of them; None for all.
        fps: Playback rate of a clip.
        keyframes: Frame number of each image.
        images: Content digest of each source image.
        mask: Content digest.
        video: Content digest.
        control_image: Content digest of the one control picture; of each, where there are several.
        ip_adapter_images: Content digest of each reference picture.
        ip_adapter_scale: Weight of the reference pictures; None without any.
        loras: (content identity, weight) of each, sorted.
        parameters: Further arguments of the pipeline, by name.
        accelerators: Options of the model entry that change pixels, by the job's keys.
        batch_size: Outputs of one call in `determinism: exact`; None otherwise.
        more: Every further column of the table that the recipe holds, by name.
    """

    key_version: int = KEY_VERSION
    task: str
    route: str = ""
    route_version: int = 1
    model: str = ""
    components: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "float32"
    seed: int = 0
    height: int = 0
    width: int = 0
    num_inference_steps: int
    prompt: str | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    strength: float | None = None
    scheduler: str = ""
    fit: str | None = None
    num_frames: int | None = None
    num_frames_kept: int | None = None
    fps: float | None = None
    keyframes: tuple[int, ...] = ()
    images: tuple[str, ...] = ()
    mask: str | None = None
    video: str | None = None
    control_image: str | tuple[str, ...] | None = None
    ip_adapter_images: tuple[str, ...] = ()
    ip_adapter_scale: float | None = None
    loras: tuple[tuple[str, float], ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    accelerators: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_clip(self) -> bool:
        """Whether the request makes a clip, not a picture."""
        return is_clip(self.task)

    @property
    def is_exact(self) -> bool:
        """Whether the batch size is part of the key, as in `determinism: exact`."""
        return self.batch_size is not None

    @property
    def other_sources(self) -> frozenset[str]:
        """Roles of the sources beside `images` that it reads."""
        return frozenset(role for role in SOURCE_ROLES[1:] if getattr(self, role))

    @property
    def num_controls(self) -> int:
        """Control pictures that it reads."""
        return 1 if isinstance(self.control_image, str) else len(self.control_image or ())

    def output_seed(self, n: int) -> int:
        """Return the seed of output `n`: seeds follow on, within 63 bits."""
        return (self.seed + n) % 2**63

    def columns(self) -> dict[str, Any]:
        """Return the fields and further columns that have a value, by name; "" is a value, but for `scheduler`."""
        found = _given(zip(_NAMES, _VALUES_OF(self), strict=True))
        if not self.scheduler:
            del found["scheduler"]
        if not self.height:
            del found["height"], found["width"]
        return {**found, **_given(self.more.items())} if self.more else found

    def metadata(self) -> dict[str, Any]:
        """Return those of `columns()` that stand in the metadata as they are."""
        found = dict(_DEFAULT_METADATA)
        for name, value in self.__dict__.items():
            if name in _IN_METADATA and (value or value in _FALSE_VALUES):
                found[name] = value  # noqa: PERF403 -- a comprehension would make a second dict, and take half as long again
        more = {name: value for name, value in self.more.items() if name in AS_IN_RECIPE}
        return {**found, **_given(more.items())} if more else found


def _given(columns: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the columns that have a value: None, and tuples and mappings without an item, are none."""
    return {name: value for name, value in columns if value or value in _FALSE_VALUES}


_NAMES: Final = tuple(item.name for item in fields(Recipe) if item.name != "more")
_FIELDS: Final = frozenset(_NAMES)
_VALUES_OF: Final = attrgetter(*_NAMES)
_FALSE_VALUES: Final = (0, "")
"""Values that are false in Python and yet values."""
_IN_METADATA: Final = _FIELDS.intersection(AS_IN_RECIPE)
_DEFAULT_METADATA: Final = _given(
    (item.name, item.default) for item in fields(Recipe) if item.name in _IN_METADATA and item.default is not MISSING
)
_MORE: Final = IN_RECIPE.keys() - _FIELDS
_REQUIRED: Final = frozenset(
    item.name for item in fields(Recipe) if item.default is MISSING and item.default_factory is MISSING
)
for _item in fields(Recipe):
    if _item.default_factory is not MISSING:  # what is empty is the class's too, and not of each recipe that is read
        setattr(Recipe, _item.name, _item.default_factory())


def parse_recipe(text: str) -> Recipe:
    """Read a recipe back from its canonical JSON, of this key version or an older one.

    Raises:
        UserError: When it is of a newer key version, or holds what no version knows.
    """
    return recipe_from(json.loads(text))


def parse_recipes(texts: Iterable[str]) -> list[Recipe]:
    """Read many recipes back; together they are read in half of the time. See `parse_recipe`."""
    found = []
    names: tuple[str, ...] | None = None
    for values in json.loads(f"[{','.join(texts)}]"):
        _refuse_newer(values)
        if names != (names := tuple(values)):
            reading = _reading_of(names)
        found.append(_read(values, reading))
    return found


def recipe_from(values: Mapping[str, Any]) -> Recipe:
    """Return the recipe of plain values by name, as JSON has them. See `parse_recipe`."""
    _refuse_newer(values)
    return _read(dict(values), _reading_of(tuple(values)))


def _refuse_newer(values: Mapping[str, Any]) -> None:
    version = values.get("key_version", KEY_VERSION)
    if version > KEY_VERSION:
        raise UserError(f"a recipe has key_version {version}; this sdbatch reads up to {KEY_VERSION}")


def _read(values: dict[str, Any], reading: _Reading) -> Recipe:
    """Return the recipe of values that it may keep."""
    if reading.absent:
        values |= reading.absent
    for name in reading.untold:
        del values[name]
    if reading.more:
        values["more"] = {name: values.pop(name) for name in reading.more}
    for name in reading.tuples:
        if not isinstance(values[name], str):
            values[name] = tuple(values[name])
    if "loras" in values:
        values["loras"] = tuple((identity, weight) for identity, weight in values["loras"])
    if "seed" in values:  # over 2**53 it stands as text, since JSON's numbers are doubles
        values["seed"] = int(values["seed"])
    recipe = object.__new__(Recipe)
    object.__setattr__(recipe, "__dict__", values)
    return recipe


class _Reading(NamedTuple):
    """How a recipe with certain names is read.

    Attributes:
        absent: Values of what is not named, where it is not the class's.
        untold: Names that older versions wrote and that decide nothing.
        more: Names of further columns.
        tuples: Names of lists.
    """

    absent: Mapping[str, Any]
    untold: tuple[str, ...]
    more: tuple[str, ...]
    tuples: tuple[str, ...]


@lru_cache(maxsize=1024)
def _reading_of(names: tuple[str, ...]) -> _Reading:
    """Return how a recipe with these names is read; a campaign has few sorts of recipes.

    Raises:
        UserError: When one is unknown, or one is missing that every recipe has.
    """
    there = frozenset(names)
    unknown = there - _FIELDS - _MORE - _OF_OLDER_VERSIONS
    if unknown:
        raise UserError(f"a recipe holds {min(unknown)!r}, which this sdbatch does not know")
    if lacking := _REQUIRED - there:
        raise UserError(f"a recipe lacks {min(lacking)!r}")
    absent = {}
    if "fit" not in there and there & frozenset(SOURCE_ROLES):
        absent["fit"] = NEUTRAL["fit"]
    if "ip_adapter_scale" not in there and "ip_adapter_images" in there:
        absent["ip_adapter_scale"] = NEUTRAL["ip_adapter_scale"]
    return _Reading(
        absent=absent,
        untold=tuple(sorted(there & _OF_OLDER_VERSIONS)),
        more=tuple(sorted(there & _MORE)),
        tuples=tuple(sorted(there & _TUPLES)),
    )


class RecipeTemplate:
    """Writes the recipes of rows that share their settings, as canonical JSON.

    Args:
        shared: Values that all of these rows have, by name; empty and neutral ones are left out.
        own: Names in which the rows differ; of `PER_ROW`.
    """

    def __init__(self, shared: Mapping[str, Any], own: Collection[str]) -> None:
        assert not PER_ROW & shared.keys(), "a group of rows shares no text, seed or source"
        self.own = tuple(sorted(own))
        members = {
            name: _member(name, canonical(value)) for name, value in shared.items() if not _is_neutral(name, value)
        }
        members |= {
            name: _GAP if name in NEUTRAL else _member(name, f'"{_GAP}"' if name in _TEXTS else _GAP)
            for name in self.own
        }
        *others, last = sorted(members)
        assert last not in self.own or last not in NEUTRAL, "a member that may be left out is followed by another one"
        text = "{" + "".join(members[name] for name in others) + members[last].removesuffix(",") + "}"
        self._pieces = text.split(_GAP)

    def fill(self, values: Mapping[str, Sequence[Any]]) -> list[str]:
        """Return the recipe of each row from its own values, one list a name."""
        first, *others = self._pieces
        num_rows = len(values[self.own[0]])
        columns: list[Iterable[str]] = [repeat(first, num_rows)]
        for name, piece in zip(self.own, others, strict=True):
            columns += [_written(name, values[name]), repeat(piece, num_rows)]
        return list(map("".join, zip(*columns, strict=True)))


def _member(name: str, text: str) -> str:
    return f"{canonical(name)}:{text},"


def _written(name: str, values: Sequence[Any]) -> Iterable[str]:
    """Return what each row's value puts into the template: a whole member, or nothing, where it may be neutral."""
    if name in NEUTRAL:
        neutral = NEUTRAL[name]
        if values.count(neutral) == len(values):
            return repeat("", len(values))
        return ["" if value == neutral else _member(name, canonical(value)) for value in values]
    if name in _TEXTS:  # the quotes stand in the template
        return values if are_plain_texts(values) else [encode_basestring(text)[1:-1] for text in values]
    return map(str if are_plain_integers(values) else canonical, values)


def _is_neutral(name: str, value: Any) -> bool:
    return value is None or (name in NEUTRAL and NEUTRAL[name] == value) or (not value and isinstance(value, Sized))


def recipe_changes(old: str, new: str) -> list[str]:
    """Return the names in which two recipes differ, sorted; what an older key version did not tell is left out."""
    before, after = (parse_recipe(text) for text in (old, new))
    untold = {"route", "model", "components"} if before.key_version != after.key_version else set()
    values, others = ({**NEUTRAL, **recipe.columns()} for recipe in (before, after))
    return sorted(name for name in (values.keys() | others.keys()) - untold if values.get(name) != others.get(name))


def with_sources(recipe: str, digests: Mapping[str, Any]) -> str:
    """Return a recipe with other contents of its sources.

    Args:
        recipe: Canonical JSON.
        digests: Content digest by role, a list of images; roles that the recipe does not have are left out.
    """
    values = json.loads(recipe)
    return canonical(values | {role: digest for role, digest in digests.items() if role in values})


def request_key(recipe: str) -> str:
    """Return the request key of a recipe's canonical JSON: 64 hex digits."""
    return hashlib.sha256(recipe.encode()).hexdigest()


def request_keys(recipes: Sequence[str]) -> pa.StringArray:
    """Return the request key of each recipe; the digits of a million of them are written together."""
    sha256 = hashlib.sha256
    digits = b"".join([sha256(recipe.encode()).digest() for recipe in recipes]).hex().encode()
    ends = np.arange(0, len(digits) + 1, KEY_DIGITS, dtype=np.int32)
    return pa.StringArray.from_buffers(len(recipes), pa.py_buffer(ends), pa.py_buffer(digits))
