"""One entry of a job's `models`: a checkpoint, what is laid over it, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import pyarrow as pa
from pydantic import BeforeValidator, Field, create_model, field_validator, model_validator

from sdbatch.columns import COLUMNS, Column
from sdbatch.job.schedulers import Presets
from sdbatch.job.weights import (
    Component,
    Dtype,
    Embedding,
    InversionWord,
    Quantize,
    Revision,
    Strict,
    VaeOptions,
    folder_of,
    numbered,
    or_several,
    or_string,
)

ENTRY_COMPONENTS: Final = ("controlnet", "motion_adapter")
"""Components that a model entry may name at its top level, beside `components`."""


def _default_of(column: Column) -> Any:
    """Return the pydantic type of a column's default; the guards against typing errors hold for rows alone."""
    bound = column.bound
    if isinstance(bound, tuple):
        return Literal[bound]
    kind = str if pa.types.is_string(column.type) else int if pa.types.is_integer(column.type) else float
    limits = Field(ge=bound.least, gt=bound.over, le=bound.most) if bound else Field()
    return Annotated[kind, limits]


if TYPE_CHECKING:

    class Defaults(Strict):
        """A type checker cannot see fields that are made from the table of columns."""

        def __init__(self, **values: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

else:
    Defaults = create_model(
        "Defaults",
        __base__=Strict,
        __module__=__name__,
        __doc__='Values for manifest columns that a row leaves null. `""` means none, null inherits.',
        **{
            column.name: (_default_of(column) | None, Field(default=None, description=column.meaning))
            for column in COLUMNS
            if column.in_defaults
        },
    )


STEP_CACHES = {
    "FirstBlockCache": ("threshold",),
    "MagCache": ("threshold", "max_skip_steps", "retention_ratio", "mag_ratios"),
    "TaylorSeerCache": ("cache_interval", "disable_cache_before_step", "max_order"),
}

"""diffusers' caches of denoising steps, by class name, and what each takes; absent options are diffusers' own."""


_Ratio = Annotated[float, Field(ge=-1000, le=1000)]


class StepCache(Strict):
    """Skips work that changes little from one denoising step to the next. Lossy."""

    kind: Literal["FirstBlockCache", "MagCache", "TaylorSeerCache"] = Field(
        description="Class of diffusers; the other keys are its options, absent ones as diffusers has them."
    )
    threshold: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        default=None, description="Change below which work is skipped (FirstBlockCache, MagCache): more is faster."
    )
    max_skip_steps: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="Most steps in a row that are skipped (MagCache)."
    )
    retention_ratio: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Share of the first steps of which none is skipped (MagCache)."
    )
    mag_ratios: (
        Annotated[list[Annotated[float, Field(ge=-1000, le=1000)]], Field(min_length=1, max_length=10_000)] | None
    ) = Field(default=None, description="Magnitudes of the model's steps, as diffusers calibrates them (MagCache).")
    cache_interval: Annotated[int, Field(ge=2, le=1000)] | None = Field(
        default=None, description="Steps from one that is computed to the next (TaylorSeerCache)."
    )
    disable_cache_before_step: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None, description="Number of first steps that are all computed (TaylorSeerCache)."
    )
    max_order: Annotated[int, Field(ge=0, le=4)] | None = Field(
        default=None, description="Highest order of the series that predicts a step (TaylorSeerCache)."
    )

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


class Model(Strict):
    """One checkpoint and how it is run."""

    path: str = Field(description="Local folder, fsspec URL of a folder, one .safetensors file, or builtin:NAME.")
    like: str | None = Field(
        default=None, description="Title of a single file's family; without it the file's own keys tell it."
    )
    config: str | None = Field(
        default=None,
        description="Folder in diffusers' layout without weights, for a single file; without it the package's own.",
    )
    variant: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,64}$")] = Field(
        default="auto",
        description="Word in the names of the files of weights, such as fp16; auto reads fp16 where dtype has 16 bits "
        'and the folder has it, else the plain files; "" reads the plain ones.',
    )
    revision: Revision | None = Field(
        default=None,
        description="Commit or digest of the content, 40 to 64 hex digits; without it the files are digested.",
    )
    family: str | None = Field(
        default=None,
        description="Title of a folder's family. With it and `revision`, check and plan read no folder; workers do. "
        "dtype cannot be auto then, and where the family has no size, defaults.height and defaults.width are needed.",
    )
    dtype: Dtype | Literal["auto"] = Field(
        default="float32",
        description="Numbers it is run in; auto is what most of the denoiser's weights are stored in.",
    )
    num_gpus: Annotated[float, Field(ge=0, le=64)] | None = Field(
        default=None, description="GPUs per worker, fractions allowed; null is 1 where the cluster has GPUs, else 0."
    )
    num_cpus: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1, description="CPU cores per worker, and torch's threads."
    )
    memory_gib: Annotated[float, Field(gt=0, le=65_536)] | None = Field(
        default=None, description="Host memory that a worker asks the cluster for."
    )
    batch_size: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = Field(
        default="auto",
        description="Rows in one pipeline call; auto finds what the device holds, and exact needs a number.",
    )
    schedulers: Presets = Field(
        default={},
        description="Presets that rows may name as their scheduler: a diffusers class and its options, by name.",
    )
    prompt_weights: Literal["none", "compel"] = Field(
        default="none",
        description="Whether weights such as (beach:1.4) or (beach)1.4 are read in prompts, or taken as plain text.",
    )
    long_prompt: Literal["truncate", "chunk", "error"] = Field(
        default="truncate",
        description="What becomes of a prompt that is longer than the text encoder reads; chunk encodes it in parts.",
    )
    embeddings: dict[InversionWord, Annotated[Embedding, BeforeValidator(folder_of)]] = Field(
        default={}, description="Textual inversions by the word that stands for them in prompts: a file."
    )
    controlnet: Annotated[Component, BeforeValidator(folder_of)] | None = Field(
        default=None,
        description="Folder of the ControlNet that reads control_image: a path, or {path, revision}; or a list.",
        json_schema_extra=or_several,
    )
    motion_adapter: Annotated[Component, BeforeValidator(folder_of)] | None = Field(
        default=None,
        description="Folder of AnimateDiff's motion adapter: a path, or {path, revision}.",
        json_schema_extra=or_string,
    )
    components: dict[
        Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")], Annotated[Component, BeforeValidator(folder_of)]
    ] = Field(
        default={},
        description="Modules laid over the model's own, by diffusers' names: a path, or {path, revision, dtype, ...}.",
    )
    quantize: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")], Quantize] = Field(
        default={}, description="How the weights of modules are quantised, by diffusers' names. Lossy."
    )
    offload: Literal["none", "model", "group"] = Field(
        default="none",
        description="What lies in host memory until it is called: nothing, whole modules, or groups of layers.",
    )
    vae: VaeOptions = VaeOptions()
    offload_text_encoder: bool = Field(
        default=False, description="Text encoders lie in host memory and visit the GPU for texts not yet known."
    )
    safety_checker: bool = Field(
        default=False,
        description="Whether the folder's own checker (Stable Diffusion 1.x) blanks what it takes for nude.",
    )
    compile: bool | Literal["whole"] = Field(
        default=False,
        description="Compile the denoiser's repeated blocks; `whole`: all of it and the VAE's decoder. Kept on disk.",
    )
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

    @model_validator(mode="before")
    @classmethod
    def _each_of_several_has_a_name(cls, entry: Any) -> Any:
        return numbered(entry)

    @model_validator(mode="after")
    def _image_encoders_are_of_adapters(self) -> Model:
        for name, component in self.laid_over.items():
            if component.image_encoder is not None and name != "ip_adapter":
                raise ValueError(f"components.{name}.image_encoder: only an ip_adapter has one; leave it out")
        return self

    @model_validator(mode="after")
    def _components_are_named_once(self) -> Model:
        for name in ENTRY_COMPONENTS:
            if name in self.components and getattr(self, name) is not None:
                raise ValueError(f"{name} stands at the top level and in components; say it once")
        for name, component in self.components.items():
            if component.quantize is not None and name in self.quantize:
                raise ValueError(f"quantize.{name} stands beside components.{name}.quantize; say it once")
        return self

    @model_validator(mode="after")
    def _options_fit_each_other(self) -> Model:
        if self.offload != "none" and self.offload_text_encoder:
            raise ValueError(f"offload: {self.offload} moves text encoders too; leave offload_text_encoder out")
        if self.layerwise_casting is not None and self.quantized:
            name = next(iter(self.quantized))
            raise ValueError(f"layerwise_casting beside quantize.{name}: quantised weights cannot be cast; say one")
        if self.config is not None and self.like is not None:
            raise ValueError("config beside like: the folder of configs tells the family; say one")
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
    def laid_over(self) -> dict[str, Component]:
        """Every component that the entry names, by its name: those of `components`, and those at the top level."""
        named = {name: folder for name in ENTRY_COMPONENTS if (folder := getattr(self, name)) is not None}
        return {**named, **self.components}

    @property
    def quantized(self) -> dict[str, Quantize]:
        """How each module is quantised, by its name: as `quantize` says, or its component."""
        own = {name: one.quantize for name, one in self.components.items() if one.quantize is not None}
        return {**self.quantize, **own}

    @property
    def accelerators(self) -> dict[str, Any]:
        """Options that change a bit of the output, by the job's keys; part of the request key in `exact`."""
        bits = {"decode_batch": self.vae.decode_batch, "slicing": self.vae.slicing or None}
        vae = {name: value for name, value in bits.items() if value is not None}
        found = {**self._chosen("compile", "channels_last", "attention_backend"), **self.lossy}
        return {**found, "vae": {**found.get("vae", {}), **vae}} if vae else found

    @property
    def lossy(self) -> dict[str, Any]:
        """Options that change what is seen, by the job's keys: part of the request key.

        A tiling that is not said follows from the size as well (`Family.is_tiled`); a recipe holds it likewise.
        """
        sage = ("attention_backend",) if self.attention_backend == "sage" else ()
        found = self._chosen(*sage, *_LOSSY)
        # Some VAEs are run in float32 unless the entry says otherwise, so that no stated dtype of one is neutral.
        neutral = {name: {None} if name.endswith("vae") else {None, self.dtype} for name in self.laid_over}
        dtypes = {name: one.dtype for name, one in self.laid_over.items() if one.dtype not in neutral[name]}
        if dtypes:
            found["dtypes"] = dtypes
        if self.quantized:
            found["quantize"] = {name: one.model_dump(exclude_defaults=True) for name, one in self.quantized.items()}
        if self.vae.tiling is True:
            found["vae"] = {"tiling": True}
        return found

    def _chosen(self, *names: str) -> dict[str, Any]:
        values = self.model_dump(mode="json", include=set(names), exclude_none=True)
        return {name: value for name, value in values.items() if value is not False}


_LOSSY = ("layerwise_casting", "step_cache", "guidance_interval", "safety_checker")
