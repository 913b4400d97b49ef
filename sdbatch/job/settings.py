"""Every key of a job file, with its type, bound and default (pydantic, strict)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from sdbatch.formats import CLIPS, PICTURES, taking
from sdbatch.job.model import Defaults, Model
from sdbatch.job.money import Budget, Prices, budget_of, or_number
from sdbatch.job.on_end import OnEnd
from sdbatch.job.reach import Storage, storage_faults
from sdbatch.job.watermark import Watermark
from sdbatch.job.weights import Lora, Strict
from sdbatch.types import SEED_MAX

if TYPE_CHECKING:
    PictureSuffix = str
    ClipSuffix = str
else:  # the table of formats is the list of choices
    PictureSuffix = Literal[tuple(PICTURES)]
    ClipSuffix = Literal[tuple(CLIPS)]

JOB_VERSION = 1
"""Raised when a key changes its meaning. A job of a newer version is refused; one without a version is of version 1."""


class Sources(Strict):
    """Places that sources may come from."""

    allow: list[str] = Field(default=[], description="Prefixes: local folders or URLs. Nothing else is ever opened.")
    bytes_max: Annotated[int, Field(ge=1, le=1 << 40)] = Field(
        default=64 << 20, description="Most bytes of a source file."
    )
    pixels_max: Annotated[int, Field(ge=1, le=1 << 32)] = Field(
        default=40_000_000, description="Most pixels of a source, or of a frame."
    )


class Workers(Strict):
    """Number of workers per slot shape."""

    count: Annotated[int, Field(ge=1, le=100_000)] | Literal["auto"] = Field(
        default="auto", description="Workers; auto is as many as fit, on a cluster up to max."
    )
    max: Annotated[int, Field(ge=1, le=100_000)] = Field(default=64, description="Most workers where count is auto.")


class Encode(Strict):
    """File formats of assets and their qualities."""

    image: PictureSuffix = Field(default="png", description="File type of pictures.")
    video: ClipSuffix = Field(default="mp4", description="File type of clips.")
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


class Limits(Strict):
    """Bounds on tries, failures and waits."""

    attempts: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=3, description="Tries of a row in one run, machine faults excluded."
    )
    failed_fraction: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.05, description="Share of the finished rows that may fail, once 100 have finished; more stop the run."
    )
    leaving_fraction: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="A run that lets a larger share of the campaign's rows leave is refused without --yes."
    )
    rerolls: Annotated[int, Field(ge=0, le=100)] = Field(
        default=3, description="Further outputs that may replace rejected and blocked ones, per output asked for."
    )
    start_timeout_s: Annotated[float, Field(gt=0, le=604_800)] = Field(
        default=600.0, description="Longest wait for a first worker, for a model's load and for its first call."
    )
    deadline_min_s: Annotated[float, Field(gt=0, le=604_800)] = Field(
        default=60.0, description="A later call may take ten times its predicted seconds, and never less than this."
    )
    cost: Annotated[Budget, BeforeValidator(budget_of)] | None = Field(
        default=None,
        description="Most money that workers may cost: a number, or {max, per}. Needs `prices`.",
        json_schema_extra=or_number,
    )
    gpu_hours: Annotated[Budget, BeforeValidator(budget_of)] | None = Field(
        default=None,
        description="Most hours of workers times their GPUs: a number, or {max, per}.",
        json_schema_extra=or_number,
    )

    @property
    def is_budgeted(self) -> bool:
        """Whether there is a budget."""
        return self.cost is not None or self.gpu_hours is not None


class ManifestTable(Strict):
    """A table that the manifest is built from, or a manifest."""

    path: Annotated[str, Field(min_length=1)] = Field(description="CSV, TSV, XLSX, JSONL or Parquet; a path or a URL.")
    sheet: str | None = Field(
        default=None, description="Sheet of a workbook; null is the only one that holds something."
    )
    id: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Format of ids for a table without a column `id`, such as '{sku}-{scene}'."
    )
    rename: dict[str, str] = Field(default={}, description="The manifest's name of a column, by the table's.")
    own: bool = Field(default=False, description="Whether other columns become your own: x_NAME.")


def _tag_of(manifest: Any) -> str:
    """Return which alternative of `manifest` a value is for; the names are those that messages leave out."""
    return "constrained-mapping" if isinstance(manifest, dict | ManifestTable) else "str"


Manifest = Annotated[
    Annotated[str, Field(min_length=1), Tag("str")] | Annotated[ManifestTable, Tag("constrained-mapping")],
    Discriminator(_tag_of),
]


class Job(Strict):
    """A whole job: what to make, with which models, where to put it."""

    version: Annotated[int, Field(ge=1, le=JOB_VERSION)] = Field(
        default=JOB_VERSION, description="Of the meaning of these keys."
    )
    manifest: Manifest = Field(
        description="Parquet (a file, a folder, a glob), a table, a brief (.yaml), or {path, sheet, id, rename, own}."
    )
    output: Annotated[str, Field(min_length=1)] = Field(
        description="The campaign: a local folder, or a URL such as s3://bucket/spring."
    )
    models: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")], Model]
    loras: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")], Lora] = Field(default={})
    defaults: Defaults = Defaults()
    sources: Sources = Sources()
    storage: dict[str, Storage] = Field(default={})
    workers: Workers = Workers()
    encode: Encode = Encode()
    limits: Limits = Limits()
    prices: Prices | None = Field(default=None, description="What the machines cost; without it nothing is in money.")
    determinism: Literal["fast", "exact"] = Field(
        default="fast",
        description="exact: equal bytes for any number of workers, order and kill; fast: equal pixels within 1 of 255.",
    )
    seed: Annotated[int, Field(ge=0, le=SEED_MAX)] = Field(
        default=0, description="Root of the seeds of rows that state none."
    )
    quality_gate: bool = Field(default=True, description="Fail images with NaN or without variance (BlankOutput).")

    after: list[str | dict[str, dict[str, Any]]] = Field(
        default=[],
        description="Stages after the model, in order: a name, or {name: settings}; quality_gate puts quality first.",
    )

    watermark: Watermark | None = Field(
        default=None, description="A function of yours that marks each picture before it is encoded; in the recipe."
    )

    on_end: OnEnd = Field(
        default=[],
        description="http(s) addresses that are sent a JSON object when a run ends, or env:NAME of a variable.",
    )

    @property
    def manifest_path(self) -> str:
        """Path or URL of the manifest, or of what it is built from."""
        return self.manifest.path if isinstance(self.manifest, ManifestTable) else self.manifest

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
    def _money_needs_prices(self) -> Job:
        if self.limits.cost is not None and self.prices is None:
            raise ValueError(
                "limits.cost needs prices, such as {gpu_hour: 2.10, currency: EUR}; or say limits.gpu_hours"
            )
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
