"""Which published model a single file of weights is, from the keys and shapes of its header alone.

    header --> Keys --> told() --> Layout: family, folder of configs, what was assumed

A file from a model site has its author's own names for its tensors, and no configuration. The names tell the family,
the shapes tell the size; where two models have equal keys, the job's `like` chooses, and else the first row of the
table is assumed, which is said. Pure: values in, values out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from sdbatch.errors import ModelError
from sdbatch.hints import nearest

PREFIX: Final = "model.diffusion_model."
"""Stands before a denoiser's keys in files that hold a text encoder or a VAE as well, and in many that do not."""

PREFIXES: Final = (PREFIX, "diffusion_model.", "model.", "net.", "unet.", "transformer.", "module.")
"""The same, and what else programs set before them; of a file one counts, the first of these that it has."""

OTHERS: Final = (
    "first_stage_model.",
    "vae.",
    "cond_stage_model.",
    "conditioner.",
    "text_encoders.",
    "model_ema.",
    "loss.",
)
"""Beginnings of the names of what stands beside a denoiser in a file."""

OF_ENCODERS: Final = ("transformer.", "cond_stage_model.transformer.", "conditioner.embedders.0.transformer.")
"""What stands before the names of a text encoder's tensors in files that were taken out of a whole model's."""

Shapes = Mapping[str, Sequence[int]]
"""The shape of each tensor by its name."""

_Tensor = TypeVar("_Tensor")


def behind_prefix(tensors: Mapping[str, _Tensor], prefixes: Sequence[str] = PREFIXES) -> dict[str, _Tensor]:
    """Return what stands behind one of some prefixes in a file, by its name without it; empty where nothing does."""
    found = ({key: key.removeprefix(one) for key in tensors if key.startswith(one)} for one in prefixes)
    return {bare: tensors[key] for key, bare in next(filter(None, found), {}).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One published model as a single file.

    Attributes:
        title: Its name for people; `like` may name it.
        family: Title of its family; "" where none is served.
        configs: Folder of its configs in `checkpoints/configs`; "" where none is shipped.
        marks: Denoiser's keys, without a prefix, that every such file has.
        absent: Denoiser's keys that no such file has.
        extra: Keys with their own prefix that such a file has.
        kind: Sizes of tensors that make it another kind of model: (key, dimension) --> size.
        sizes: Sizes of tensors of the published model, which its configs are for.
        encoders: Text encoders that such a file may hold, each with the keys of which one tells it.
        assumed: What its keys do not tell, with what else it may be.
        layers: Expression for the names of all its denoiser's layers; None where they are not listed.
    """

    title: str
    family: str
    configs: str = ""
    marks: tuple[str, ...]
    absent: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    kind: Mapping[tuple[str, int], int] = field(default_factory=dict)
    sizes: Mapping[tuple[str, int], int] = field(default_factory=dict)
    encoders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    assumed: str = ""
    layers: re.Pattern[str] | None = None

    def takes(self, keys: Keys) -> bool:
        """Whether a file is of this kind, whatever its size."""
        return (
            all(mark in keys.denoiser for mark in self.marks)
            and not any(mark in keys.denoiser for mark in self.absent)
            and all(key in keys.shapes for key in self.extra)
            and not _differing(self.kind, {**keys.shapes, **keys.denoiser})
        )

    def is_told_like(self, other: Layout) -> bool:
        """Whether the same keys tell both, so that only sizes or the job's word choose between them."""
        return (self.marks, self.absent, self.extra, self.kind) == (other.marks, other.absent, other.extra, other.kind)

    def strange(self, keys: Keys) -> list[str]:
        """Return the layers in a file that the published model does not have; a layer's weight is a matrix."""
        if self.layers is None:
            return []
        names = (name for name, shape in keys.denoiser.items() if len(shape) > 1 and not name.startswith(OTHERS))
        return sorted(name for name in names if not self.layers.fullmatch(name))

    def misfits(self, keys: Keys) -> list[str]:
        """Return where a file has other sizes than the published model, as text."""
        return _differing(self.sizes, keys.denoiser)


@dataclass(frozen=True, slots=True)
class Keys:
    """The tensors of one file.

    Attributes:
        shapes: Shapes by name.
        denoiser: Shapes by name, of those that may be the denoiser's; without a prefix.
    """

    shapes: Shapes
    denoiser: Shapes

    @classmethod
    def of(cls, tensors: Mapping[str, Mapping[str, Any]]) -> Keys:
        """Read them off a header."""
        shapes: Shapes = {name: tensor["shape"] for name, tensor in tensors.items()}
        return cls(shapes, behind_prefix(shapes) or shapes)

    def holds(self, beginning: str) -> bool:
        """Whether any name begins so."""
        return any(name.startswith(beginning) for name in self.shapes)


def told(layouts: Iterable[Layout], keys: Keys, like: str | None, *, any_size: bool = False) -> Layout | None:
    """Return the layout of a file; None where its keys are nobody's.

    Args:
        layouts: The table, the most particular first, of equal ones the usual first.
        keys: The file's.
        like: Title of a layout or a family, where the job says one.
        any_size: Whether sizes may differ from the published model's, as configs of the job's own are there.

    Raises:
        ModelError: When `like` is nobody's title or contradicts the keys; when the sizes are no published model's; when
            the model is known and not served.
    """
    rows = list(layouts)
    fitting = _equals(rows, keys)
    if like is not None:
        fitting = _liked(rows, fitting, like)
    if not fitting:
        return None
    if not fitting[0].family:
        raise ModelError(f"is {fitting[0].title}, which is not served from a single file")
    if any_size:
        return fitting[0]
    exact = [row for row in fitting if row.configs and not row.misfits(keys)]
    if not exact:
        nearest = min(fitting, key=lambda row: len(row.misfits(keys)))
        raise ModelError(
            f"is laid out as {nearest.title}, but {'; '.join(nearest.misfits(keys)[:3])}; "
            "name a folder of its own configs with config:"
        )
    return exact[0]


def alternatives(layouts: Iterable[Layout], layout: Layout, keys: Keys) -> list[str]:
    """Return the titles of the other layouts that a file's keys and sizes fit equally well."""
    others = [row for row in _equals(list(layouts), keys) if row.configs != layout.configs]
    return [row.title for row in others if not row.misfits(keys)]


def named_after(layouts: Iterable[Layout], keys: Keys) -> str:
    """Return the title of the published model whose keys a file has, "" for none."""
    return next((row.title for row in _equals(list(layouts), keys)), "")


def families_of(layouts: Iterable[Layout], keys: Keys) -> set[str]:
    """Return the titles of the families that a file's keys may be of."""
    return {row.family for row in _equals(list(layouts), keys)}


def _equals(rows: Sequence[Layout], keys: Keys) -> list[Layout]:
    """Return the first row that takes a file, with those that are told like it."""
    first = next((row for row in rows if row.takes(keys)), None)
    return [row for row in rows if first is not None and row.is_told_like(first)]


def _liked(rows: Sequence[Layout], fitting: Sequence[Layout], like: str) -> list[Layout]:
    titles = {row.title: row for row in rows if row.family}
    families = {row.family for row in rows if row.family}
    if like not in titles and like not in families:
        near = nearest(like, [*titles, *families])
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(sorted(titles))}"
        raise ModelError(f"like: {like!r} is no single file that is known; {hint}")
    chosen = [row for row in fitting if like in {row.title, row.family}]
    if fitting and not chosen:
        raise ModelError(f"has the keys of {fitting[0].title}, and the job says like: {like!r}")
    return chosen


def _differing(sizes: Mapping[tuple[str, int], int], shapes: Shapes) -> list[str]:
    found = []
    for (key, dimension), size in sizes.items():
        shape = shapes.get(key)
        if shape is None:
            found.append(f"it has no {key}")
        elif not -len(shape) <= dimension < len(shape) or shape[dimension] != size:
            found.append(f"{key} has the shape {list(shape)}, not {size} in place {dimension % max(len(shape), 1)}")
    return found
