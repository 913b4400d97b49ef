"""A model in memory: one pipeline for each route of its tasks, all sharing their modules."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
from diffusers.loaders import TextualInversionLoaderMixin

from sdbatch.canonical import canonical
from sdbatch.errors import ModelLoadFailed
from sdbatch.families import Family, Route
from sdbatch.generate.accelerators import denoisers_of
from sdbatch.generate.decoding import DecodePlan, is_tiled, plan_decoding
from sdbatch.generate.inversions import INVERSIONS_MAX, Inversion
from sdbatch.generate.load.controlnets import joined_controlnets
from sdbatch.generate.load.kept_loras import KeptLoras
from sdbatch.generate.load.loras import LoraFile
from sdbatch.generate.load.placing import ModelOffload, offload_groups
from sdbatch.generate.load.references import References
from sdbatch.generate.load.schedulers import scheduler_from
from sdbatch.generate.memo import Memo
from sdbatch.generate.tokens import TokenCounter
from sdbatch.job import Model, base_of
from sdbatch.recipe import Recipe

OPTIONS = {"add_watermarker": False}
"""Arguments of every pipeline class that accepts them: a campaign's pictures bear no watermark."""


class LoadedModel:
    """A model in memory, with one pipeline for each route of its tasks; they share their modules.

    Attributes:
        class_name: Class of the folder's pipeline.
        family: Row of the family table.
        device: Device that holds it: `cuda` or `cpu`.
        options: The job's entry.
        denoiser_parameters: Number of its denoiser's parameters; of one of two.
        reads_guidance: Whether its denoiser is a UNet that reads guidance beside the time, as distilled ones do (LCM).
        memo: Outputs of its encoders; kept as long as the model is.
        tokens: Counter of the tokens of a prompt.
        loras: The LoRAs that can be laid over it.
        references: Its IP-Adapter, which is in the denoiser only while a call reads reference pictures; None without.
    """

    def __init__(
        self,
        pipeline: Any,
        family: Family,
        device: Literal["cuda", "cpu"],
        components: Mapping[str, Any] | None = None,
        loras: Mapping[str, LoraFile] | None = None,
        options: Model | None = None,
        embeddings: Mapping[tuple[str, str], Path] | None = None,
        references: References | None = None,
        embedding_vectors: Mapping[str, int] | None = None,
    ) -> None:
        """Take a loaded pipeline.

        Args:
            pipeline: Pipeline of the folder's own class.
            family: Family of the model.
            device: Device that holds it.
            components: Further modules by name: `controlnet`, `motion_adapter`.
            loras: By identity, the LoRAs that were made for the family.
            options: The job's entry of the model.
            embeddings: File of each textual inversion of the entry, by its word and identity.
            references: Its IP-Adapter.
            embedding_vectors: Vectors of each textual inversion, by its word.
        """
        self.class_name = type(pipeline).__name__
        self.family = family
        self.device = device
        self.options = options or Model(path="")
        self._base = pipeline
        self._components = components or {}
        self._pipelines: dict[str, Any] = {self.class_name: pipeline}
        self._schedulers: dict[str, Any] = {"": pipeline.scheduler}
        self._offload = ModelOffload(device) if self.options.offload == "model" else None
        # diffusers would lay hooks of its own again
        before_attach = self._offload.unhook if self._offload is not None else lambda: None
        self.references = references
        if references is not None:
            references.take_out()
        compiled = denoisers_of(pipeline, family) if self.options.compile else ()
        self.loras = KeptLoras(pipeline, loras or {}, before_attach, compiled)
        self._decoded_max: dict[tuple[int, int, int | None, bool], int] = {}
        self.tokens = TokenCounter(pipeline, family, embedding_vectors or {})
        denoiser = getattr(pipeline, family.denoiser, None)
        self.denoiser_parameters = 0 if denoiser is None else sum(value.numel() for value in denoiser.parameters())
        self.reads_guidance = denoiser is not None and denoiser.config.get("time_cond_proj_dim") is not None
        self.memo = Memo()
        self._embeddings = embeddings or {}
        self._inversions: dict[str, Inversion] = {}

    def pipeline(
        self,
        route: Route,
        scheduler: str,
        loras: Sequence[Sequence[Any]] = (),
        scheduler_options: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the pipeline of a route with a fresh scheduler and only the adapters that a recipe asks for.

        Args:
            route: One of the family's routes of a task.
            scheduler: diffusers class, or "" for the folder's own.
            loras: (identity, weight) of each, as in the recipe.
            scheduler_options: Laid over the configuration of the folder's own scheduler.

        Raises:
            ModelLoadFailed: When a LoRA is no longer what was planned.
            LoraRefused: When some of a LoRA fits nothing in the model.
        """
        pipeline = self._pipelines.get(route.pipeline)
        if pipeline is None:
            further = {name: self._of_several(name, is_union=route.nets == "union") for name in route.components}
            pipeline = self._pipelines[route.pipeline] = _sibling(self._base, route.pipeline, further)
            if self.options.offload == "group":
                offload_groups(pipeline.components, self.device)  # some pipelines make a denoiser of their own
        options = scheduler_options or {}
        asked = f"{scheduler} {canonical(options)}" if options else scheduler
        if asked not in self._schedulers:
            self._schedulers[asked] = scheduler_from(self._schedulers[""], scheduler, options)
        pipeline.scheduler = copy.deepcopy(self._schedulers[asked])
        self.loras.switch(loras)
        if self._offload is not None:
            self._offload.hook(pipeline)
        return pipeline

    def inversion(self, recipe: Recipe) -> Inversion | None:
        """Return the textual inversions that a recipe makes use of; None where it names none.

        Raises:
            ModelLoadFailed: When one is not what was planned, or does not fit the model.
        """
        asked: Mapping[str, str] = recipe.more.get("embeddings", {})
        if not asked:
            return None
        place = canonical(asked)
        if place not in self._inversions:
            for word, revision in asked.items():
                if (word, revision) not in self._embeddings:
                    raise ModelLoadFailed(f"embeddings.{word} is not what was planned: it should be {revision}")
            if len(self._inversions) >= INVERSIONS_MAX:
                self._inversions.clear()
            files = {word: self._embeddings[word, revision] for word, revision in sorted(asked.items())}
            self._inversions[place] = Inversion(self._base, files)
        return self._inversions[place]

    def _of_several(self, component: str, *, is_union: bool) -> Any:
        """Return a component; a module of all of them where the model has several, or one reads several pictures."""
        parts = [module for name, module in self._components.items() if base_of(name) == component]
        is_joined = len(parts) > 1 or (is_union and component == "controlnet")
        return joined_controlnets(parts) if is_joined else parts[0]

    def decode_plan(self, recipe: Recipe, rows: int, *, is_exact: bool) -> DecodePlan:
        """Return how the rows of a call are decoded; what a decoder ran out of memory at is not tried again."""
        known_max = self._decoded_max.get(_decoded_size(recipe))
        return plan_decoding(recipe, rows, self.options.vae, is_exact=is_exact, known_max=known_max)

    def learn_decoding(self, recipe: Recipe, rows_max: int) -> None:
        """Note how many rows of a recipe's size the decoder could take at once."""
        self._decoded_max[_decoded_size(recipe)] = rows_max

    def scheduler_name(self, scheduler: str) -> str:
        """Return the class name of the scheduler a row gets."""
        return scheduler or type(self._schedulers[""]).__name__

    def forget_call(self) -> None:
        """Drop the tensors that a call has left: schedulers keep predictions, a VAE that failed keeps its frames."""
        for pipeline in self._pipelines.values():
            vars(pipeline).update(
                {name: None for name, value in vars(pipeline).items() if isinstance(value, torch.Tensor)}
            )
            pipeline.scheduler = self._schedulers[""]
            if hasattr(pipeline.vae, "clear_cache"):
                pipeline.vae.clear_cache()


def _decoded_size(recipe: Recipe) -> tuple[int, int, int | None, bool]:
    return recipe.height, recipe.width, recipe.num_frames, is_tiled(recipe)


def _sibling(base: Any, class_name: str, further: Mapping[str, Any]) -> Any:
    """Return a pipeline of another class that shares a pipeline's modules.

    diffusers' `from_pipe` would cast the shared weights in place: to float32 without `dtype`, and with it those too
    that a model keeps in float32.
    """
    cls = getattr(diffusers, class_name)
    arguments = {**base.config, **base.components, **further, **OPTIONS}
    names = inspect.signature(cls.__init__).parameters.keys()
    pipeline = cls(**{name: arguments[name] for name in names if name in arguments})
    quieten(pipeline)
    return pipeline


def quieten(pipeline: Any) -> None:
    """Switch off a pipeline's progress bar, and a search in prompts that has no result.

    diffusers looks in every prompt for words that a textual inversion made several tokens of, and tokenizes the prompt
    once more for that. A tokenizer has no such words unless it holds `word_1` beside `word`.
    """
    pipeline.set_progress_bar_config(disable=True)
    if isinstance(pipeline, TextualInversionLoaderMixin):
        pipeline.maybe_convert_prompt = _convert_prompt


_INVERSIONS = TextualInversionLoaderMixin()


def _convert_prompt(prompt: str | list[str], tokenizer: Any) -> str | list[str]:
    """Put the words of a textual inversion into a prompt. It holds no pipeline: one that holds itself is not freed."""
    added = tokenizer.added_tokens_encoder
    if not any(f"{word}_1" in added for word in added):
        return prompt
    converted: str | list[str] = _INVERSIONS.maybe_convert_prompt(prompt, tokenizer)
    return converted
