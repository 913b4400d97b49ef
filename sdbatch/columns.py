"""Every column of the manifest and of the metadata, once: its type, its bound, and where it goes.

    COLUMNS --> the manifest's schema, `defaults` of a job, what the plan settles, recipe, metadata, gallery, docs/

One more column is one row here; what reads it names it: a family's map of arguments, or the code it was made for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa

from sdbatch.hints import nearest
from sdbatch.types import SEED_MAX, TASKS

Use = Literal["id", "binding", "text", "source", "argument", "list", "setting", "seed", "record"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers that a column takes; a bound that is None does not hold.

    Attributes:
        least: Smallest number.
        over: Number that every value is above.
        most: Largest number.
        guard: Largest number of a row, against typing errors; defaults of a job are not held to it.
    """

    least: float | None = None
    over: float | None = None
    most: float | None = None
    guard: float | None = None

    def __contains__(self, value: float) -> bool:
        """Return whether a row may have this value; NaN and infinities are in no range."""
        most = self._row_most
        return (
            (isinstance(value, int) or math.isfinite(value))  # an int may be too long for a float
            and (self.least is None or self.least <= value)
            and (self.over is None or self.over < value)
            and (most is None or value <= most)
        )

    def __str__(self) -> str:
        """Return what a value outside of it is told, after "is not"."""
        most = self._row_most
        if self.over is None:
            return f"at least {self.least}" if most is None else f"in {self.least}..{most}"
        return f"over {self.over}" + ("" if most is None else f" and at most {most}")

    @property
    def _row_most(self) -> float | None:
        return self.guard if self.most is None else self.most


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column.

    Attributes:
        name: In the manifest, in `defaults`, in the recipe and in the metadata alike.
        type: As `manifest build` and the metadata write it.
        use: What a manifest column is to the plan. `binding`: it chooses task or model. `text`: it differs row by row.
            `source`: it names files. `argument`: it is settled by row, model, job and family in turn, and the family's
            routes say under which name the pipeline takes it. `list` and `setting`: the plan has rules of its own for
            it. `seed`: the seed follows from it. `record`: it is not a manifest column, only recorded.
        bound: Range of a number, or the choices of a text; None for any value.
        family_bounds: Whether the family's own check holds values to closer bounds, so that the table's stands aside.
        default: What stands where neither the row, the job nor the family says anything.
        neutral: Value that means the same as no value, for ever; it is not written into the recipe.
        in_defaults: Whether a job, and each of its models, may have a default for it.
        in_recipe: Whether the recipe holds it as the plan settled it.
        in_metadata: Whether the metadata has it.
        is_measured: Whether the metadata tells it of the finished asset, not as the recipe asks for it.
        is_joined: Whether it is added where metadata are read, from what people decided, and never stored with them.
        in_gallery: Whether a card of the gallery shows it among the settings.
        meaning: One line for people, in the documentation's tables of the manifest and of the metadata.
        other_names: What other programs call it, in small letters with `_` between words. A table's column of such a
            name is refused with this one's, and never taken for one of the user's own.
    """

    name: str
    type: pa.DataType
    use: Use = "record"
    bound: Range | tuple[str, ...] | None = None
    family_bounds: bool = False
    default: Any = None
    neutral: Any = None
    in_defaults: bool = False
    in_recipe: bool = False
    in_metadata: bool = False
    is_measured: bool = False
    is_joined: bool = False
    in_gallery: bool = False
    meaning: str = ""
    other_names: tuple[str, ...] = ()

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a row's value, None when nothing is."""
        if isinstance(self.bound, Range):
            return None if value in self.bound else f"is not {self.bound}"
        if self.bound is not None and value not in self.bound:
            return f"is {'neither' if len(self.bound) == 2 else 'none of'} {_joined(self.bound)}"
        return None


def _joined(choices: tuple[str, ...]) -> str:
    return " nor ".join(choices) if len(choices) == 2 else ", ".join(choices)


_TEXT: Final = pa.string()
_INT: Final = pa.int32()
_FLOAT: Final = pa.float64()
_TEXTS: Final = pa.list_(_TEXT)
_LORAS: Final = pa.list_(pa.struct([("name", _TEXT), ("weight", _FLOAT)]))
_STAGES: Final = pa.list_(pa.struct([("name", _TEXT), ("verdict", _TEXT), ("label", _TEXT), ("score", _FLOAT)]))


def _recorded(name: str, kind: pa.DataType, meaning: str) -> Column:
    """Return a column of the metadata alone."""
    return Column(name=name, type=kind, in_metadata=True, meaning=meaning)


def _joined_column(name: str, kind: pa.DataType, meaning: str) -> Column:
    """Return a column that people's decisions fill where metadata are read."""
    return Column(name=name, type=kind, is_joined=True, meaning=meaning)


def _source(name: str, kind: pa.DataType, meaning: str, **more: Any) -> Column:
    return Column(name=name, type=kind, use="source", in_recipe=True, in_metadata=True, meaning=meaning, **more)


def _argument(name: str, kind: pa.DataType, meaning: str = "", **more: Any) -> Column:
    """Return a column that is settled by row, model, job and family, and goes into recipe and metadata."""
    values = {"in_defaults": True, "in_recipe": True, "in_metadata": True, **more}
    return Column(name=name, type=kind, use="argument", meaning=meaning, **values)


COLUMNS: Final[tuple[Column, ...]] = (
    Column(
        name="id",
        type=_TEXT,
        use="id",
        in_metadata=True,
        meaning="unique in the manifest; `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`",
    ),
    _recorded("request_key", _TEXT, "sha256 of the recipe, in hex"),
    _recorded("n", _INT, "number of the output, from 0; null where a request failed as a whole"),
    _recorded("status", _TEXT, "`ok`, `failed`, or `blocked` by a stage after the model"),
    _recorded("asset", _TEXT, "the file, from the campaign's folder"),
    _recorded("sha256", _TEXT, "the file's digest, in hex"),
    _recorded("asset_bytes", pa.int64(), "the file's size"),
    _recorded("media_type", _TEXT, "such as `image/png`"),
    Column(
        name="task",
        type=_TEXT,
        use="binding",
        bound=TASKS,
        in_defaults=True,
        in_recipe=True,
        in_metadata=True,
        meaning="a task, by its Hugging Face name",
    ),
    Column(
        name="model",
        type=_TEXT,
        use="binding",
        in_defaults=True,
        in_metadata=True,
        meaning="a name from the job's `models`",
        other_names=("checkpoint", "ckpt", "ckpt_name"),
    ),
    _recorded("model_revision", _TEXT, "the model's content: its `revision`, or the digest of its files"),
    _recorded("pipeline_class", _TEXT, "diffusers' class that made it"),
    Column(
        name="prompt",
        type=_TEXT,
        use="text",
        in_defaults=True,
        in_recipe=True,
        in_metadata=True,
        meaning='needed where the model reads one; `""` is a legal prompt; at most 8,000 characters, NFC',
    ),
    Column(
        name="negative_prompt",
        type=_TEXT,
        use="text",
        default="",
        neutral="",
        in_defaults=True,
        in_recipe=True,
        in_metadata=True,
        meaning="what the picture should not show; at most 8,000 characters, NFC",
        other_names=("negative", "neg", "neg_prompt"),
    ),
    _source(
        "images",
        _TEXTS,
        "sources: one for image-to-image; one or more key frames for image-to-video",
        other_names=("init_image", "input_image", "source_image"),
    ),
    Column(
        name="keyframes",
        type=pa.list_(_INT),
        use="list",
        in_recipe=True,
        meaning="frame number of each image; null spreads them evenly, first to last",
    ),
    _source("mask", _TEXT, "inpainting's mask", other_names=("mask_image", "inpaint_mask")),
    _source("video", _TEXT, "the source of video-to-video"),
    _source("control_image", _TEXTS, "pictures that ControlNets read, one for each of the model's"),
    _source("ip_adapter_images", _TEXTS, "reference pictures for style or face, where the model has an `ip_adapter`"),
    _argument(
        "fit",
        _TEXT,
        "how a source meets the size: `cover` (crop, default) or `contain` (pad)",
        bound=("cover", "contain"),
        default="cover",
        neutral="cover",
    ),
    _argument(
        "height",
        _INT,
        "pixels; what the family cannot make is refused with the nearest it can",
        bound=Range(least=1),
        family_bounds=True,
        is_measured=True,
    ),
    _argument("width", _INT, "as `height`", bound=Range(least=1), family_bounds=True, is_measured=True),
    _argument(
        "num_frames",
        _INT,
        "frames, by the family's rule",
        bound=Range(least=1),
        family_bounds=True,
        is_measured=True,
        other_names=("frames", "frame_count"),
    ),
    _argument(
        "duration_s",
        _FLOAT,
        "instead of `num_frames`: the next count the family can make is made and trimmed",
        bound=Range(over=0, guard=86_400),
        other_names=("duration_seconds", "duration_sec"),
        in_recipe=False,
        in_metadata=False,
    ),
    _argument(
        "fps",
        _FLOAT,
        "playback rate",
        bound=Range(least=0.01, guard=240),
        other_names=("frame_rate", "framerate", "frames_per_second"),
    ),
    _argument(
        "num_inference_steps",
        _INT,
        "denoising steps asked for",
        bound=Range(least=1, guard=1000),
        in_gallery=True,
        other_names=("steps", "num_steps", "sampling_steps", "denoising_steps"),
    ),
    _argument(
        "guidance_scale",
        _FLOAT,
        "weight of the prompt",
        bound=Range(least=0, guard=1000),
        in_gallery=True,
        other_names=("cfg", "cfg_scale", "guidance"),
    ),
    _argument(
        "strength",
        _FLOAT,
        "how far a source is left behind",
        bound=Range(over=0, most=1),
        in_gallery=True,
        other_names=("denoise", "denoising", "denoising_strength"),
    ),
    _argument(
        "ip_adapter_scale",
        _FLOAT,
        "weight of the `ip_adapter_images`; 1 without it",
        bound=Range(least=0, guard=10),
        default=1.0,
        neutral=1.0,
        in_gallery=True,
    ),
    _argument(
        "scheduler",
        _TEXT,
        "a preset of the model entry, a diffusers class name, or a sampler's name of A1111 or ComfyUI",
        neutral="",
        is_measured=True,
        in_gallery=True,
        other_names=("sampler", "sampler_name", "sampling_method"),
    ),
    # Follows from `scheduler`, which is a class in the recipe; a mapping there, JSON in the metadata.
    Column(name="scheduler_options", type=_TEXT, in_recipe=True),
    # How a prompt is encoded, where its model's entry says so and the row makes use of it.
    Column(name="prompt_weights", type=_TEXT, in_recipe=True),
    Column(name="long_prompt", type=_TEXT, in_recipe=True),
    Column(name="embeddings", type=_TEXT, in_recipe=True),
    Column(
        name="loras",
        type=_LORAS,
        use="list",
        in_recipe=True,
        meaning="`name` (of the job's `loras`) and `weight` of each",
    ),
    Column(
        name="parameters",
        type=_TEXT,
        use="setting",
        in_recipe=True,
        meaning="JSON object: further pipeline arguments, those the family's table has",
    ),
    Column(
        name="seed",
        type=pa.int64(),
        use="seed",
        bound=Range(least=0, most=SEED_MAX),
        in_recipe=True,
        in_metadata=True,
        meaning="null: derived from the job's seed and `id` (or `seed_group`), never from worker, order or time",
        other_names=("noise_seed", "random_seed"),
    ),
    Column(name="seed_group", type=_TEXT, use="seed", meaning="rows that share it share their derived seed"),
    Column(
        name="num_outputs",
        type=_INT,
        use="setting",
        bound=Range(least=1, guard=1024),
        default=1,
        in_defaults=True,
        meaning="assets for this row, seeds following on",
        other_names=("outputs", "num_images", "num_images_per_prompt", "batch_count", "n_iter"),
    ),
    _recorded("source_digests", _TEXTS, "sha256 of each source, in hex"),
    _recorded(
        "source_notes",
        _TEXTS,
        "what is to be known of how sources were read, such as a colour profile that was not found",
    ),
    _recorded("prompt_tokens", _INT, "the prompt's length in tokens; null without a prompt"),
    _recorded("prompt_truncated", pa.bool_(), "whether the text encoder reads fewer tokens than that"),
    Column(
        name="dtype",
        type=_TEXT,
        neutral="float32",
        in_recipe=True,
        in_metadata=True,
        meaning="numbers that the model computes with",
    ),
    Column(
        name="watermark",
        type=_TEXT,
        in_recipe=True,
        in_metadata=True,
        meaning="name and version of the function that marked it",
    ),
    _recorded(
        "accelerators", _TEXT, "JSON object: the model entry's options that move bits, such as `compile` and `quantize`"
    ),
    _recorded("device", _TEXT, "`cuda` or `cpu`"),
    _recorded("batch_size", _INT, "outputs that shared the pipeline call"),
    _recorded("versions", _TEXT, "JSON object: versions of the packages that decide pixels or files"),
    _recorded("load_s", _FLOAT, "seconds of the model's load, this output's share; 0 where it was loaded before"),
    _recorded("fetch_s", _FLOAT, "seconds of reading its sources, this output's share"),
    _recorded("denoise_s", _FLOAT, "seconds of the pipeline call outside the VAE's decoder, this output's share"),
    _recorded("decode_s", _FLOAT, "seconds in the VAE's decoder, this output's share"),
    _recorded("encode_s", _FLOAT, "seconds of writing pixels as a file"),
    _recorded("upload_s", _FLOAT, "seconds of putting the file into the store"),
    _recorded("attempts", _INT, "pipeline calls that it was part of; 0 for a copy of what an earlier run made"),
    _recorded("worker", _TEXT, "name of the worker in its run"),
    _recorded("run_id", _TEXT, "the run that made it, a folder under `runs/`"),
    _recorded("unit", _TEXT, "the unit of work, whose commit holds this row"),
    _recorded("committed_at", pa.timestamp("ms", tz="UTC"), "when that commit was written"),
    _recorded(
        "adopted", pa.bool_(), "whether the file lay there already, put by a worker that ended before its commit"
    ),
    _recorded("copied_from", _TEXT, "the file of the same request key that it is a copy of"),
    _recorded("replaces", _INT, "number of the rejected or blocked output in whose place it was made"),
    _recorded("error_type", _TEXT, "class of the failure"),
    _recorded("error_message", _TEXT, "what it says, its first 500 characters"),
    _recorded("error_retryable", pa.bool_(), "whether the next run tries it again by itself"),
    _recorded("error_traceback_sha256", _TEXT, "the same for equal failures"),
    _recorded("stages", _STAGES, "what each stage after the model said of it"),
    _recorded("stages_digest", _TEXT, "stands for the settings of the stages that may block"),
    _recorded(
        "recipe",
        _TEXT,
        "canonical JSON of all that decides its pixels; `keyframes`, `loras` and `parameters` stand here alone",
    ),
    _joined_column("verdict", _TEXT, "`approved`, `picked` or `rejected`"),
    _joined_column("reviewed_by", _TEXT, "who decided"),
    _joined_column("reviewed_at", pa.timestamp("ms", tz="UTC"), "when"),
    _joined_column("note", _TEXT, "what was noted beside it"),
)
"""In the order in which the manifest's table, a job's defaults and the metadata have them."""

MANIFEST: Final = {column.name: column for column in COLUMNS if column.use != "record"}
"""Columns that a manifest may have beside `x_*`."""


_BY_OTHER_NAME: Final = {other: name for name, column in MANIFEST.items() for other in column.other_names}
_BETWEEN_WORDS: Final = re.compile(r"[\W_]+")
NAME_CHARS_MAX: Final = 128
"""Most characters of a column's name; of a longer one no more are compared with the columns'."""


def column_meant(name: str, among: Iterable[str] = MANIFEST, nearness: float = 0.6) -> str | None:
    """Return the column that a name is perhaps meant for: by what other programs call it, or as a slip of the pen.

    Args:
        name: That no column has.
        among: Columns that may be meant.
        nearness: How alike two names must be, from 0 to 1.
    """
    known = list(among)
    folded = name[:NAME_CHARS_MAX].strip().casefold()
    other = _BY_OTHER_NAME.get(_BETWEEN_WORDS.sub("_", folded).strip("_"))
    if other in known:
        return other
    return nearest(folded, known, nearness)


def named(*uses: Use) -> tuple[str, ...]:
    """Return the names of the columns with one of these uses, in order."""
    return tuple(column.name for column in COLUMNS if column.use in uses)


JOINED: Final = {column.name: column for column in COLUMNS if column.is_joined}
"""Columns that are added where metadata are read; see `sdbatch.verdicts`."""

SOURCE_ROLES: Final = named("source")
"""Manifest columns that name files to read; `images` is the first."""

LISTED_ROLES: Final = tuple(column.name for column in COLUMNS if column.use == "source" and column.type == _TEXTS)
"""Those of them that may name several."""

AS_IN_RECIPE: Final = tuple(
    column.name
    for column in COLUMNS
    if column.in_recipe and column.in_metadata and not column.is_measured and column.use not in {"seed", "source"}
)
"""Columns that the metadata takes from the recipe as they stand there."""

IN_RECIPE: Final = {column.name: column for column in COLUMNS if column.in_recipe}
"""Columns that the recipe holds as they were settled."""


def seed_problem(seed: int) -> str | None:
    """Return what is wrong with a row's seed, with what to write instead; None when nothing is."""
    if 0 <= seed <= SEED_MAX:
        return None
    if seed < 0:
        hint = "leave it empty where any seed will do: it is then derived from the row's id and stays the same"
    else:
        hint = "programs that draw seeds of 64 bits, as ComfyUI does, give twice as many; take a smaller one"
    return f"is not in 0..{SEED_MAX}; {hint}"
