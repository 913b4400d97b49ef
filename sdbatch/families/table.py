"""The nouns of the family table: a family, and the routes by which it serves a task.

    task + what a request gives (how many images, which other sources, key frames) --> Family.route() --> Route

A task may have several routes: LTX makes a clip from one image with one pipeline, from a set of key frames with
another. The first route that takes exactly what a request gives serves it, at plan time and in the worker alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from sdbatch.errors import UserError
from sdbatch.recipe import Recipe

READ_BY: Final[Mapping[str, tuple[str, str]]] = {"ip_adapter_images": ("ip_adapter", "IPAdapter")}
"""Component that reads an optional source, and its class."""


class Given(NamedTuple):
    """The sources that a request gives beside text and numbers.

    Attributes:
        num_images: Source images.
        others: Other sources that are there: `mask`, `video`, `control_image`, `ip_adapter_images`.
        keyframes: Whether it says at which frames its images stand.
        num_controls: Control pictures.
        num_references: Reference pictures.
    """

    num_images: int = 0
    others: frozenset[str] = frozenset()
    keyframes: bool = False
    num_controls: int = 0
    num_references: int = 0


def given_of(recipe: Recipe) -> Given:
    """Return what the request of a recipe gives."""
    return Given(
        len(recipe.images),
        recipe.other_sources,
        bool(recipe.keyframes),
        recipe.num_controls,
        len(recipe.ip_adapter_images),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One pipeline class by which a family serves a task, and how it is called.

    Attributes:
        pipeline: diffusers class that serves it.
        arguments: Manifest columns it takes, each with the name of the pipeline's argument; "" for what is settled
            outside the call (`scheduler`, `fit`, `loras`, a size that follows from the source). `area` is height times
            width.
        images: Fewest and most source images.
        sources: Other sources it needs: `mask`, `video`, `control_image`. It takes no others but optional ones.
        optional: Other sources that it may be given: `ip_adapter_images`, where the model entry has an `ip_adapter`.
        rows: What may share a call. `list`: rows of any sources, as lists. `shared`: rows with the same sources, which
            then join the batch key. `single`: one row a call.
        adapter: Row of `generate/tasks/adapters.py` that puts the arguments into the pipeline's own form; "" for none.
        enlarges: How many times its source's height and width the output has; 1 where the row says the size, or settles
            it. Such a source keeps its own size.
        tile: Side of the denoiser's samples above which they are denoised in tiles that overlap by a quarter; 0 for
            never. It is part of the version: another number moves pixels.
        padded_to: Height and width of a source are filled up to multiples of this by its edges; the output is cut back.
        keyframes: How images stand in a clip. "": the first one begins it. `any`: at any frames.
            `chained`: as segments between neighbours from first frame to last, so that gaps follow the frame rule.
        full_strength_ignores_source: Whether a source is not read at all when `strength` asks for every step: steps are
            rounded up, and the first one then begins from noise alone.
        constants: Further arguments of every call.
        parameters: Names that a row's `parameters` may hold, with their types.
        defaults: Defaults by column; they go before the family's.
        tokens_max: Tokens the text encoder reads, where this pipeline reads other than the family's; 0 for those.
        negative_needs: Parameter that must be over 1 for a negative prompt to be read; "" for none.
        guidance_is_distilled: Whether guidance is an input of the denoiser, so that it costs no second pass.
        unless: What makes a folder one that this pipeline cannot serve though others of the family can, in the form of
            `Family.when`.
        components: Folders the job's model entry must name, with their diffusers class: `controlnet`, `motion_adapter`.
        requires: Python packages that the class needs beyond the project's own.
        nets: Which ControlNets read its control pictures. `each`: the model's, one picture each. `one`: a single one
            reads a single picture. `union`: a single one reads any number of them.
        net_reads_mask: Whether its ControlNet reads the mask as a channel of its own, and its control picture is what
            is painted.
        rows_interact: Whether results can change with the other rows of the call, even at a fixed batch size.
        per_row_guidance: Whether each row of a call may have guidance of its own; the batch key then leaves it out.
        empty_negative_differs: Whether an empty negative prompt differs from none (SDXL uses zeros for none); rows with
            and without one then do not share a call.
        version: Part of the request key; raised when our call of the pipeline changes pixels.
    """

    pipeline: str
    arguments: Mapping[str, str]
    images: tuple[int, int] = (0, 0)
    sources: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    rows: Literal["list", "shared", "single"] = "list"
    enlarges: int = 1
    tile: int = 0
    padded_to: int = 1
    keyframes: Literal["", "any", "chained"] = ""
    full_strength_ignores_source: bool = False
    adapter: str = ""
    constants: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, type] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    tokens_max: int = 0
    negative_needs: str = ""
    guidance_is_distilled: bool = False
    unless: Mapping[str, Any] = field(default_factory=dict)
    components: Mapping[str, str] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    nets: Literal["each", "one", "union"] = "each"
    net_reads_mask: bool = False
    rows_interact: bool = False
    per_row_guidance: bool = False
    empty_negative_differs: bool = False
    version: int = 1

    @property
    def name(self) -> str:
        """Name in the recipe, its own among the routes of a task: the pipeline's class."""
        return self.pipeline

    @property
    def batch_of_one_in_exact(self) -> bool:
        """Whether `determinism: exact` makes its rows one by one.

        A clip's pixels depend on its place in the batch (by 1e-3 in a batch of 3: Wan, CPU), not on its neighbours.
        """
        return self.rows == "single" or self.rows_interact or "num_frames" in self.arguments

    def reads(self, text: str, parameters: Mapping[str, Any]) -> bool:
        """Whether the route reads a text column, with these further parameters."""
        if text != "negative_prompt" or not self.negative_needs:
            return text in self.arguments
        return text in self.arguments and parameters.get(self.negative_needs, 1.0) > 1

    def takes(self, given: Given) -> bool:
        """Whether the route reads every source that is given, and lacks none."""
        least, most = self.images
        return (
            least <= given.num_images <= most
            and self.sources <= given.others <= self.sources | self.optional
            and (bool(self.keyframes) or not given.keyframes)
        )

    @property
    def every_component(self) -> Mapping[str, str]:
        """Components that the job's model entry may name for it, with their class; those of optional sources too."""
        return {**self.components, **{READ_BY[role][0]: READ_BY[role][1] for role in self.optional}}

    def components_for(self, given: Given) -> Mapping[str, str]:
        """Return the components that it needs for what a request gives, with their class."""
        return {**self.components, **dict(READ_BY[role] for role in self.optional & given.others)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One row of the table.

    Attributes:
        title: Name for people and in the table.
        class_name: `_class_name` in model_index.json.
        when: What else tells it from other families of that class: `FILE KEY` in the folder, and the value there;
            `...` for any but null.
        unless: What makes a folder of that class one that is not served, in the same form.
        tasks: Routes of each task, the plainest first.
        size_multiple: Height and width are multiples of this, in pixels.
        size_min: Least height and width in pixels.
        size_max: Greatest height and width in pixels, a guard against typing errors.
        pixels_max: Most pixels of a picture, height times width; 0 for no bound of its own.
        sizes: Heights and widths that are made, where there are no others: the pipeline would take another size for one
            of these; () for any within the bounds.
        frame_multiple: A clip has a multiple of this, plus 1, frames; 0 where no task makes clips.
        frames_min: Fewest frames.
        frames_max: Most frames, a guard against typing errors.
        defaults: Defaults by column, with height and width where the folder does not say them.
        schedulers: Class names a row may ask for.
        gives_sigmas: Whether its pipelines give a scheduler the noise levels of the steps, or how far they are shifted,
            which not every scheduler of a flow takes.
        denoiser: Folder of the denoiser in the model folder.
        tokenizer: Component that cuts the prompt; one absent from a folder falls back to `tokenizer`.
        tokens_max: Tokens the text encoder reads; 0: as the tokenizer says. `max_sequence_length` in `parameters` wins.
        tflop_reference: Work of one denoiser call at `pixels_reference`, 10^12 operations (2 x multiply-adds,
            counted with torch's FlopCounterMode on the published architecture; attention included).
        pixels_reference: Height times width (times frames) of that count.
        parameters_reference: Parameters of the denoiser it was counted on; smaller models scale linearly.
        step_caches: diffusers' caches of steps that its denoiser knows and that skip something on it.
        cfg_layout: How a call is guided, where guidance can be left out of some steps: with rows twice in a pass, first
            without and then with the prompt (`halves`), or with and without it in a pass each (`passes`); else "".
        untiled_max: Most pixels times frames of an output that `vae.tiling: auto` decodes whole; 0 for no bound. Keys
            of larger outputs hold the tiling, so that another number moves keys.
        vae_tiles: Whether its VAE can decode in tiles.
        vae_is_shifted: Whether its pipelines add the VAE's `shift_factor` to latents, so that it must be a number.
        takes_encoded_prompts: Whether prompts may be weighted, chunked and hold words of textual inversions: its text
            encoders are CLIP's, and all of its pipelines take what they would encode.
    """

    title: str
    class_name: str
    when: Mapping[str, Any] = field(default_factory=dict)
    unless: Mapping[str, Any] = field(default_factory=dict)
    tasks: Mapping[str, tuple[Route, ...]]
    size_multiple: int
    size_min: int = 8
    size_max: int = 8192
    pixels_max: int = 0
    sizes: tuple[tuple[int, int], ...] = ()
    frame_multiple: int = 0
    frames_min: int = 1
    frames_max: int = 1025
    defaults: Mapping[str, Any]
    schedulers: tuple[str, ...]
    gives_sigmas: bool = False
    denoiser: str
    tokenizer: str = "tokenizer"
    tokens_max: int = 0
    tflop_reference: float
    pixels_reference: int
    parameters_reference: int
    step_caches: frozenset[str] = frozenset()
    cfg_layout: Literal["", "halves", "passes"] = ""
    untiled_max: int = 0
    vae_tiles: bool = True
    vae_is_shifted: bool = False
    takes_encoded_prompts: bool = False

    @property
    def has_second_denoiser(self) -> bool:
        """Whether another denoiser makes the later steps."""
        return f"model_index.json {self.denoiser}_2" in self.when

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes of all its tasks."""
        return tuple(route for of_task in self.tasks.values() for route in of_task)

    def is_tiled(self, tiling: bool | Literal["auto"], *, height: int, width: int, num_frames: int) -> bool:
        """Return whether an output is decoded in tiles; the device is never asked, so that a key holds everywhere.

        Args:
            tiling: The job's `vae.tiling`.
            height: Pixels.
            width: Pixels.
            num_frames: 1 for a picture.
        """
        if tiling != "auto":
            return tiling
        return 0 < self.untiled_max < height * width * num_frames

    def route(self, task: str, given: Given) -> Route | None:
        """Return the first route of a task that takes what is given, None where there is none."""
        return next((route for route in self.tasks[task] if route.takes(given)), None)

    def route_of(self, recipe: Recipe) -> Route:
        """Return the route that serves a resolved request."""
        if not recipe.route:  # key version 1 named none
            route = self.route(recipe.task, given_of(recipe))
        else:
            route = next((route for route in self.tasks[recipe.task] if route.name == recipe.route), None)
        asked = f"{recipe.task} by {recipe.route} version {recipe.route_version}"
        if route is None or (recipe.route and route.version != recipe.route_version):
            raise UserError(f"a recipe asks for {asked}, which {self.title} of this sdbatch does not have")
        return route


def nearest_multiple(value: int, multiple: int, least: int, most: int) -> int:
    """Return the multiple of `multiple` in [least, most] nearest to `value`; the larger of two equally near."""
    lower = math.ceil(least / multiple) * multiple
    upper = most // multiple * multiple
    return min(max((value + multiple // 2) // multiple * multiple, lower), upper)


def nearest_size(height: float, width: float, sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Return the height and width that are nearest in shape; of equally near ones, that nearest in area."""
    shape, area = math.log(width / height), math.log(width * height)

    def distance(size: tuple[int, int]) -> tuple[float, float]:
        return round(abs(math.log(size[1] / size[0]) - shape), 6), abs(math.log(math.prod(size)) - area)

    return min(sizes, key=distance)


def next_frame_count(num_frames: int, multiple: int) -> int:
    """Return the least count of the form k * multiple + 1 that is not under `num_frames`."""
    return -(-(num_frames - 1) // multiple) * multiple + 1


def cost_tflop(
    family: Family, *, parameters: int, height: int, width: int, num_frames: int, steps: int, guided: bool
) -> float:
    """Predict the work of one output in 10^12 floating point operations.

    Denoiser calls only, linear in pixels, frames and parameters, doubled by classifier-free guidance. Good to a
    factor of two, which is enough to order units; the seconds per TFLOP are measured while a run goes on.

    Args:
        family: The model's row.
        parameters: Parameters of the model's denoiser; 0 when unknown, which stands for the reference.
        height: Pixels.
        width: Pixels.
        num_frames: 1 for an image.
        steps: Denoiser steps that are really made.
        guided: Whether guidance doubles the calls.
    """
    scale = (parameters or family.parameters_reference) / family.parameters_reference
    pixels = height * width * num_frames / family.pixels_reference
    return family.tflop_reference * scale * pixels * steps * (2 if guided else 1)
