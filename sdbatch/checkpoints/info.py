"""Descriptions of a model and of a LoRA, known before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sdbatch.checkpoints.identity import combined
from sdbatch.families import Family
from sdbatch.job import Model, base_of, is_fixed


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleFile:
    """What is known of a model whose weights are one file.

    Attributes:
        title: Published model it is laid out as, such as `Flux.1 dev`.
        configs: Folder with its configs: the package's own, or the one that the job names.
        revision: Identity of the file alone; "" when it was not asked for.
        assumed: What its keys do not tell and was assumed, as a sentence; "" where nothing was.
    """

    title: str
    configs: str
    revision: str
    assumed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One entry of the job's `models`, looked into.

    Attributes:
        name: Name in the job.
        path: As in the job, made absolute; `builtin:NAME` stays.
        family: Row of the family table.
        revision: Identity of the folder and of every further folder the entry names, in one digest; "" when it was not
            asked for.
        base_revision: Identity of the model folder alone; of a single file, with its configs.
        height: Native height in pixels.
        width: Native width in pixels.
        parameters: Number of the denoiser's parameters; 0 when unknown.
        module_parameters: Parameters of each module by its name, as its files' headers say; of a published model's
            single file those of its denoiser and of components, of a folder that was not looked into those of
            components alone.
        options: The job's entry.
        is_pinned: Whether the identities name contents; folders in a bucket without a stated revision are known by
            size and ETag only.
        components: Class of each component that the entry lays over the model, or names beside it.
        component_revisions: Identity of the content of each of them.
        net_configs: Configuration of each ControlNet among them; empty where none was looked into.
        modules: Library and class of every module in model_index.json; empty where it was not looked into.
        quantized_by: Backend of every module whose weights are quantised, when they are loaded or before.
        defaults: Settings of its own, over its family's.
        single_file: What is known of it where its weights are one file; None for a folder.
        embeddings: Identity of each textual inversion by its word.
        embedding_vectors: How many vectors each of these words stands for.
        ends_in_noise: Whether its own scheduler brings the last step to a signal of zero (`rescale_betas_zero_snr`):
            its weights were trained so.
        shifts_by_size: Whether its own scheduler waits to be told how far noise levels are shifted
            (`use_dynamic_shifting`), which not every pipeline of its family does.
        has_own_noise: Whether its own scheduler has noise levels of the model's own (`timestep_type: continuous`),
            which schedulers of other classes leave out.
        scheduler_requires: Python packages that its own scheduler needs.
        unserved: What of its folder a route cannot serve, by the route's name; others serve it.
    """

    name: str
    path: str
    family: Family
    revision: str
    height: int
    width: int
    parameters: int
    options: Model
    base_revision: str = ""
    is_pinned: bool = True
    components: Mapping[str, str] = field(default_factory=dict)
    component_revisions: Mapping[str, str] = field(default_factory=dict)
    net_configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    modules: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    quantized_by: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    module_parameters: Mapping[str, int] = field(default_factory=dict)
    single_file: SingleFile | None = None
    embeddings: Mapping[str, str] = field(default_factory=dict)
    embedding_vectors: Mapping[str, int] = field(default_factory=dict)
    ends_in_noise: bool = False
    shifts_by_size: bool = False
    has_own_noise: bool = False
    scheduler_requires: tuple[str, ...] = ()
    unserved: Mapping[str, str] = field(default_factory=dict)

    @property
    def scheduler(self) -> str:
        """Class of its own scheduler, or of the one that is laid over it; "" where the folder was not looked into."""
        return self.components.get("scheduler") or self.modules.get("scheduler", (None, None))[1] or ""

    @property
    def always_laid_over(self) -> list[str]:
        """Components that every call is made with; the others are for the routes that name them."""
        of_routes = {name for route in self.family.routes for name in route.every_component}
        return [name for name in self.options.components if base_of(name) not in of_routes]

    def named(self, component: str) -> list[str]:
        """Return the names of a component in this entry: several where it stands for a list, none where it has none."""
        return [name for name in self.components if base_of(name) == component]

    @property
    def combined_revision(self) -> str:
        """Identity of everything that a worker loads for this entry: what it must find is what was planned."""
        return combined(self.base_revision or self.revision, self.component_revisions)

    def answers_to(self, revision: str) -> bool:
        """Whether a revision that was planned, or recorded by any version, may stand for what was found here.

        A name that can move, as version 0.1 recorded it, is not compared: it never told the content.
        """
        # Who states a family leaves the folder unread, and so does not know which variant `auto` finds in it.
        unread = combined(self.options.revision or "", self.component_revisions)
        known = {self.revision, self.base_revision, self.combined_revision, unread} - {""}
        return revision in known or not is_fixed(revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraInfo:
    """One entry of the job's `loras`, looked into.

    Attributes:
        name: Name in the job.
        base: Title or class name of the family it fits.
        revision: Identity of its weights, and of the denoiser they are for where that is a second one; "" when it was
            not asked for.
        is_pinned: See `ModelInfo`.
        weights_revision: Identity of its weights alone.
        is_second: Whether it is for a second denoiser.
        left_out: Why its file cannot be applied as a whole, as its keys tell; "" where that is not certain.
    """

    name: str
    base: str
    revision: str
    is_pinned: bool = True
    weights_revision: str = ""
    is_second: bool = False
    left_out: str = ""

    def fits(self, family: Family) -> bool:
        """Whether the LoRA was trained for a family, and for a denoiser that it has."""
        return self.base in {family.title, family.class_name} and (family.has_second_denoiser or not self.is_second)
