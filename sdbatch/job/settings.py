"""Every key of a job file, with its type, bound and default (pydantic, strict)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pyarrow as pa
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    create_model,
    field_validator,
    model_validator,
)

from sdbatch.columns import COLUMNS, Column
from sdbatch.formats import CLIPS, PICTURES, taking
from sdbatch.job.reach import Storage, storage_faults
from sdbatch.types import SEED_MAX

if TYPE_CHECKING:
    PictureSuffix = str
    ClipSuffix = str
else:  # the table of formats is the list of choices
    PictureSuffix = Literal[tuple(PICTURES)]
    ClipSuffix = Literal[tuple(CLIPS)]

JOB_VERSION = 1
"""Raised when a key changes its meaning. A job of a newer version is refused; one without a version is of version 1."""

COMPONENTS = ("controlnet", "motion_adapter")
"""Further folders that a model entry may name."""

_REVISION = re.compile(r"[0-9a-f]{40,64}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def is_fixed(revision: str) -> bool:
    """Whether a revision names one content for ever: a commit or a digest of 40 to 64 hex digits."""
    return _REVISION.fullmatch(revision) is not None


def _refuse_moving(revision: Any) -> Any:
    """Refuse a name that may stand for other weights tomorrow, while the request keys stay as they are."""
    if not isinstance(revision, str):
        return revision
    if not is_fixed(revision.lower()):
        raise ValueError(
            f"{revision!r} is a name that can move, not a commit or a digest of 40 to 64 hex digits; "
            "`sdbatch models pin JOB` prints the digest to paste, and without a revision the files are digested"
        )
    return revision.lower()


Revision = Annotated[str, BeforeValidator(_refuse_moving), Field(pattern=r"^[0-9a-fA-F]{40,64}$")]


def _default_of(column: Column) -> Any:
    """Return the pydantic type of a column's default; the guards against typing errors hold for rows alone."""
    bound = column.bound
    if isinstance(bound, tuple):
        return Literal[bound]
    kind = str if pa.types.is_string(column.type) else int if pa.types.is_integer(column.type) else float
    limits = Field(ge=bound.least, gt=bound.over, le=bound.most) if bound else Field()
    return Annotated[kind, limits]


if TYPE_CHECKING:

    class Defaults(_Strict):
        """A type checker cannot see fields that are made from the table of columns."""

        def __init__(self, **values: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

else:
    Defaults = create_model(
        "Defaults",
        __base__=_Strict,
        __module__=__name__,
        __doc__='Values for manifest columns that a row leaves null. `""` means none, null inherits.',
        **{column.name: (_default_of(column) | None, None) for column in COLUMNS if column.in_defaults},
    )


STEP_CACHES = {
    "FirstBlockCache": ("threshold",),
    "MagCache": ("threshold", "max_skip_steps", "retention_ratio", "mag_ratios"),
    "TaylorSeerCache": ("cache_interval", "disable_cache_before_step", "max_order"),
}

"""diffusers' caches of denoising steps, by class name, and what each takes; absent options are diffusers' own."""


_Ratio = Annotated[float, Field(ge=-1000, le=1000)]


class StepCache(_Strict):
    """Skips work that changes little from one denoising step to the next. Lossy."""

    kind: Literal["FirstBlockCache", "MagCache", "TaylorSeerCache"]
    threshold: Annotated[float, Field(gt=0, le=1000)] | None = None
    max_skip_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    retention_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    mag_ratios: (
        Annotated[list[Annotated[float, Field(ge=-1000, le=1000)]], Field(min_length=1, max_length=10_000)] | None
    ) = None
    cache_interval: Annotated[int, Field(ge=2, le=1000)] | None = None
    disable_cache_before_step: Annotated[int, Field(ge=0, le=1000)] | None = None
    max_order: Annotated[int, Field(ge=0, le=4)] | None = None

    @model_validator(mode="after")
    def _options_of_its_kind(self) -> StepCache:
        taken = STEP_CACHES[self.kind]
        others = sorted(self.options().keys() - set(taken))
        if others:
            raise ValueError(f"step_cache: {self.kind} takes no {others[0]}; it takes {', '.join(taken)}")
        if self.kind == "MagCache" and self.mag_ratios is None:
            raise ValueError("step_cache: MagCache needs mag_ratios, as calibrated for the model")
        return self

    def options(self) -> dict[str, Any]:
        """Return what was said, by diffusers' names."""
        return self.model_dump(exclude={"kind"}, exclude_none=True)


class Component(_Strict):
    """One more folder of a model entry; a plain path stands for one without a revision."""

    path: str = Field(description="Local folder or fsspec URL of a folder.")
    revision: Revision | None = Field(default=None, description="Names the content; see a model's.")


def _folder_of(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def _or_string(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"type": "string"}, *schema["anyOf"]]


class Model(_Strict):
    """One model folder and how it is run."""

    path: str = Field(description="Local folder, fsspec URL of a folder, or builtin:NAME.")
    revision: Revision | None = Field(
        default=None,
        description="Commit or digest of the content, 40 to 64 hex digits; without it the files are digested.",
    )
    family: str | None = Field(
        default=None,
        description="Title of its family. With it and `revision`, check and plan need no folder; workers look.",
    )
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    num_gpus: Annotated[float, Field(ge=0, le=64)] | None = Field(
        default=None, description="GPUs per worker, fractions allowed; null is 1 where the cluster has GPUs, else 0."
    )
    num_cpus: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1, description="CPU cores per worker, and torch's threads."
    )
    memory_gib: Annotated[float, Field(gt=0, le=65_536)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    long_prompt: Literal["truncate", "error"] = "truncate"
    controlnet: Annotated[Component, BeforeValidator(_folder_of)] | None = Field(
        default=None,
        description="Folder of the ControlNet that reads control_image: a path, or {path, revision}.",
        json_schema_extra=_or_string,
    )
    motion_adapter: Annotated[Component, BeforeValidator(_folder_of)] | None = Field(
        default=None,
        description="Folder of AnimateDiff's motion adapter: a path, or {path, revision}.",
        json_schema_extra=_or_string,
    )
    offload_text_encoder: bool = Field(
        default=False, description="Text encoders lie in host memory and visit the GPU for texts not yet known."
    )
    safety_checker: bool = Field(
        default=False,
        description="Whether the folder's own checker (Stable Diffusion 1.x) blanks what it takes for nude.",
    )
    compile: bool = Field(default=False, description="Compile the denoiser's repeated blocks; kept on disk for others.")
    channels_last: bool = Field(default=False, description="Memory format of UNet and VAE.")
    attention_backend: (
        Literal[
            "native",
            "_native_cudnn",
            "_native_efficient",
            "_native_flash",
            "_native_math",
            "flash",
            "flash_varlen",
            "_flash_3",
            "flex",
            "xformers",
            "sage",
        ]
        | None
    ) = Field(default=None, description="Of a transformer, by diffusers' name. sage is lossy.")
    layerwise_casting: Literal["float8_e4m3fn", "float8_e5m2"] | None = Field(
        default=None, description="Type the denoiser's weights are stored in; computed in `dtype`. Lossy."
    )
    step_cache: StepCache | None = None
    guidance_interval: tuple[float, float] | None = Field(
        default=None, description="Part of the steps that is guided, such as [0.1, 0.8]. Lossy."
    )
    defaults: Defaults = Defaults()

    @model_validator(mode="after")
    def _stated_family_needs_revision(self) -> Model:
        if self.family is not None and self.revision is None:
            raise ValueError(f"family {self.family!r} without a revision: the folder would be digested all the same")
        return self

    @field_validator("guidance_interval", mode="before")
    @classmethod
    def _ascending(cls, interval: Any) -> Any:
        if interval is None:
            return None
        first, last = interval if isinstance(interval, list | tuple) and len(interval) == 2 else (0, 0)
        if not all(isinstance(value, int | float) for value in (first, last)) or not 0 <= first < last <= 1:
            raise ValueError(f"{interval!r} is not two numbers in 0..1, the lower one first")
        return (float(first), float(last))

    @model_validator(mode="after")
    def _coupled_rows_are_alone(self) -> Model:
        if self.step_cache is not None and self.step_cache.kind == "FirstBlockCache" and self.batch_size != 1:
            raise ValueError(
                f"step_cache: FirstBlockCache decides for all rows of a call alike, so it needs batch_size: 1; "
                f"it is {self.batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _steps_are_skipped_one_way(self) -> Model:
        if self.step_cache is not None and self.guidance_interval is not None:
            raise ValueError("step_cache beside guidance_interval: what is cached of guided steps fits no others")
        return self

    @property
    def slot(self) -> tuple[float, int, float | None]:
        """GPUs, cores and memory of a worker; models with equal slots share their workers. Null counts as one GPU."""
        return 1.0 if self.num_gpus is None else self.num_gpus, self.num_cpus, self.memory_gib

    @property
    def slot_gpus(self) -> float:
        """GPUs that a second of a worker counts as, in predictions and costs: none, or a null, counts as one."""
        return self.num_gpus or 1.0

    @property
    def components(self) -> dict[str, Component]:
        """The further folders that the entry names, by the job's keys."""
        return {name: folder for name in COMPONENTS if (folder := getattr(self, name)) is not None}

    @property
    def accelerators(self) -> dict[str, Any]:
        """Accelerators that the job asks for, by its keys."""
        return self._chosen("compile", "channels_last", "attention_backend", *_LOSSY)

    @property
    def lossy(self) -> dict[str, Any]:
        """Accelerators that change what is seen: part of the request key."""
        sage = ("attention_backend",) if self.attention_backend == "sage" else ()
        return self._chosen(*sage, *_LOSSY)

    def _chosen(self, *names: str) -> dict[str, Any]:
        values = self.model_dump(mode="json", include=set(names), exclude_none=True)
        return {name: value for name, value in values.items() if value is not False}


_LOSSY = ("layerwise_casting", "step_cache", "guidance_interval")


class Lora(_Strict):
    """Weights that a row may lay over a model, by name."""

    path: str = Field(description="Local folder or fsspec URL of a folder.")
    base: str = Field(description="Family it was trained for: its title, or the class name in model_index.json.")
    weight_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$")] = (
        "pytorch_lora_weights.safetensors"
    )
    revision: Revision | None = Field(default=None, description="Names the content; see a model's.")
    partial: Literal["refuse", "allow"] = Field(
        default="refuse", description="What becomes of rows when some of its keys fit nothing in the model."
    )


class Sources(_Strict):
    """Places that sources may come from."""

    allow: list[str] = Field(default=[], description="Prefixes: local folders or URLs. Nothing else is ever opened.")
    bytes_max: Annotated[int, Field(ge=1, le=1 << 40)] = 64 << 20
    pixels_max: Annotated[int, Field(ge=1, le=1 << 32)] = 40_000_000


class Workers(_Strict):
    """Number of workers per slot shape."""

    count: Annotated[int, Field(ge=1, le=100_000)] | Literal["auto"] = "auto"
    max: Annotated[int, Field(ge=1, le=100_000)] = 64


class Encode(_Strict):
    """File formats of assets and their qualities."""

    image: PictureSuffix = "png"
    video: ClipSuffix = "mp4"
    quality: Annotated[int, Field(ge=1, le=100)] = Field(default=92, description=f"For {taking('quality')}.")
    lossless: bool = Field(default=False, description=f"For {taking('lossless')}.")
    video_crf: Annotated[int, Field(ge=1, le=51)] | None = Field(
        default=None,
        description="Rate factor of clips, lower is better; null is "
        + ", ".join(f"{one.crf} in {suffix} ({one.codec})" for suffix, one in CLIPS.items() if one.crf is not None)
        + ".",
    )

    @property
    def crf(self) -> int | None:
        """The rate factor clips are encoded with; None where the codec takes none."""
        own = CLIPS[self.video].crf
        return own if own is None or self.video_crf is None else self.video_crf


class Limits(_Strict):
    """Bounds on tries, failures and waits."""

    attempts: Annotated[int, Field(ge=1, le=1000)] = 3
    failed_fraction: Annotated[float, Field(ge=0, le=1)] = 0.05
    leaving_fraction: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="A run that lets a larger share of the campaign's rows leave is refused without --yes."
    )
    start_timeout_s: Annotated[float, Field(gt=0, le=604_800)] = Field(
        default=600.0, description="Longest wait for a first worker, for a model's load and for its first call."
    )
    deadline_min_s: Annotated[float, Field(gt=0, le=604_800)] = Field(
        default=60.0, description="A later call may take ten times its predicted seconds, and never less than this."
    )


class Job(_Strict):
    """A whole job: what to make, with which models, where to put it."""

    version: Annotated[int, Field(ge=1, le=JOB_VERSION)] = Field(
        default=JOB_VERSION, description="Of the meaning of these keys."
    )
    manifest: Annotated[str, Field(min_length=1)]
    output: Annotated[str, Field(min_length=1)]
    models: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")], Model]
    loras: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")], Lora] = {}
    defaults: Defaults = Defaults()
    sources: Sources = Sources()
    storage: dict[str, Storage] = {}
    workers: Workers = Workers()
    encode: Encode = Encode()
    limits: Limits = Limits()
    determinism: Literal["fast", "exact"] = "fast"
    seed: Annotated[int, Field(ge=0, le=SEED_MAX)] = 0
    quality_gate: bool = Field(default=True, description="Fail images with NaN or without variance (BlankOutput).")

    after: list[str | dict[str, dict[str, Any]]] = Field(
        default=[],
        description="Stages after the model, in order: a name, or {name: settings}; quality_gate puts quality first.",
    )

    @property
    def stages(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and settings of every stage after the model, in order."""
        named = [(entry, {}) if isinstance(entry, str) else next(iter(entry.items())) for entry in self.after]
        is_named = any(name == "quality" for name, _ in named)
        return [("quality", {}), *named] if self.quality_gate and not is_named else named

    @field_validator("after")
    @classmethod
    def _one_stage_an_entry(cls, after: list[Any]) -> list[Any]:
        names = [name for entry in after for name in ([entry] if isinstance(entry, str) else entry)]
        if any(len(entry) != 1 for entry in after if isinstance(entry, dict)):
            raise ValueError("an entry is a name, or a mapping of one name to its settings")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{twice[0]!r} appears {names.count(twice[0])} times; a stage runs once")
        return after

    @field_validator("models")
    @classmethod
    def _some_model(cls, models: dict[str, Model]) -> dict[str, Model]:
        if not models:
            raise ValueError("names no model; at least 1 is needed")
        return models

    @field_validator("storage")
    @classmethod
    def _options_of_their_scheme(cls, storage: dict[str, Storage]) -> dict[str, Storage]:
        faults = [fault for prefix, options in storage.items() for fault in storage_faults(prefix, options)]
        if faults:
            raise ValueError("; ".join(faults))
        return storage

    @model_validator(mode="after")
    def _defaults_name_models(self) -> Job:
        if self.defaults.model is not None and self.defaults.model not in self.models:
            raise ValueError(f"defaults.model: {self.defaults.model!r} is not one of {', '.join(self.models)}")
        if isinstance(self.workers.count, int) and self.workers.count > self.workers.max:
            raise ValueError(f"workers.count: {self.workers.count} is over workers.max = {self.workers.max}")
        return self

    @model_validator(mode="after")
    def _exact_needs_batch_sizes(self) -> Job:
        if self.determinism == "exact":
            auto = [name for name, model in self.models.items() if model.batch_size == "auto"]
            if auto:
                raise ValueError(f"determinism: exact needs an integer batch_size; models.{auto[0]}.batch_size is auto")
        return self


def job_schema() -> dict[str, Any]:
    """Return the JSON Schema of a job file, for editors; `jobs/job.schema.json` holds it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Job.model_json_schema()}
