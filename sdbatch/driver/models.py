"""Reports what the models of a job can make on this machine; no weights are read."""

from __future__ import annotations

from dataclasses import dataclass

from sdbatch.checkpoints import BUILTINS, SHIPPED, ModelInfo, describe
from sdbatch.driver.predicted.memory import ModelMemory, default_size, memory_of
from sdbatch.families.listing import frame_rule, size_rule
from sdbatch.job import Job, parse_job
from sdbatch.plan.checks import lacking
from sdbatch.recipe import is_clip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """One model and the tasks it serves.

    Attributes:
        name: Its name in the job, or the builtin's.
        path: Where it lies.
        family: Title of its family.
        tasks: Tasks it serves here and now.
        lacking: Tasks it would serve besides, each with the folder or Python package that is missing.
        height: Native height, pixels.
        width: Native width, pixels.
        size_multiple: Height and width are multiples of this, in pixels.
        size_rule: The same as text, or the few sizes that its family makes.
        frame_rule: Numbers of frames its clips may have; "" where it makes none.
        num_frames: Frames of its clips by default.
        fps: Playback rate of its clips by default.
        schedulers: Presets of the entry and class names that a row may ask for.
        dtype: Number format it is run in.
        memory: What it takes for outputs of its own size, and the card it needs.
        laid_out_as: Published model that a single file is laid out as; "" for a folder.
        assumed: What a single file does not tell of itself and was assumed; "" where nothing was.
    """

    name: str
    path: str
    family: str
    tasks: list[str]
    lacking: list[str]
    height: int
    width: int
    size_multiple: int
    size_rule: str
    frame_rule: str
    num_frames: int | None
    fps: float | None
    schedulers: list[str]
    dtype: str
    memory: ModelMemory
    laid_out_as: str = ""
    assumed: str = ""


def job_of_builtins() -> Job:
    """Return a job whose models are the builtins."""
    builtins = {name: {"path": f"builtin:{name}"} for name in (*SHIPPED, *BUILTINS)}
    return parse_job({"manifest": ".", "output": ".", "models": builtins})


def describe_models(job: Job) -> list[ModelReport]:
    """Describe each model of a job.

    Raises:
        ModelError: When a folder is missing or of no known family.
    """
    models = [describe(name, model, job.storage, with_revision=False) for name, model in job.models.items()]
    return [_model_report(model) for model in models]


def _model_report(model: ModelInfo) -> ModelReport:
    family = model.family
    defaults = {**family.defaults, **model.defaults}
    lacks = {(task, route.pipeline): lacking(route, model) for task, routes in family.tasks.items() for route in routes}
    tasks = list(dict.fromkeys(task for (task, _), reasons in lacks.items() if not reasons))
    return ModelReport(
        name=model.name,
        path=model.path,
        family=family.title,
        tasks=tasks,
        lacking=[f"{task} ({pipeline}) {'; '.join(reasons)}" for (task, pipeline), reasons in lacks.items() if reasons],
        height=model.height,
        width=model.width,
        size_multiple=family.size_multiple,
        size_rule=size_rule(family),
        frame_rule=frame_rule(family) if any(map(is_clip, tasks)) else "",
        num_frames=defaults.get("num_frames"),
        fps=defaults.get("fps"),
        schedulers=[*model.options.schedulers, *family.schedulers],
        dtype=model.options.dtype,
        memory=memory_of(model, [default_size(model)]),
        laid_out_as=model.single_file.title if model.single_file else "",
        assumed=model.single_file.assumed if model.single_file else "",
    )
