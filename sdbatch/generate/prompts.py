"""Encodes prompts with weights and prompts of more tokens than a text encoder reads, by compel.

    items --> PromptEncoder.lengths() --> rows of equal length share a call
    rows + arguments --> with_encoded() --> prompt_embeds in the place of prompts

Every text is encoded by itself, so that a row depends on no other one. The shorter one of a row's prompt and negative
prompt is filled up with the encoding of an empty text; texts of other rows never lengthen it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch

from sdbatch.errors import GenerationFailed
from sdbatch.prompt_syntax import as_compel, with_vectors
from sdbatch.recipe import Recipe

if TYPE_CHECKING:
    from sdbatch.families import Route
    from sdbatch.generate.item import Item

_CONJUNCTIONS_MAX: Final = 16
"""Most parts of one prompt that compel's `.and()` joins."""


def is_encoded(recipe: Recipe) -> bool:
    """Whether the rows of a recipe are encoded here, not by the pipeline."""
    return bool(recipe.more.keys() & {"prompt_weights", "long_prompt"})


class PromptEncoder:
    """Encodes the texts of one call.

    Args:
        pipeline: Pipeline with one text encoder, or with two (SDXL).
        recipe: A recipe of the call.
        tokens: Text that stands for each word of a textual inversion.
    """

    def __init__(self, pipeline: Any, recipe: Recipe, tokens: Mapping[str, str]) -> None:
        from compel import Compel, ReturnedEmbeddingsType

        self._pipeline = pipeline
        self._tokens = tokens
        self._has_weights = "prompt_weights" in recipe.more
        self._is_guided = (recipe.guidance_scale or 0.0) > 1
        self._has_two = getattr(pipeline, "text_encoder_2", None) is not None
        kind = ReturnedEmbeddingsType
        returned = (
            kind.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED if self._has_two else kind.LAST_HIDDEN_STATES_NORMALIZED
        )
        self._compels = [
            Compel(
                tokenizer=getattr(pipeline, f"tokenizer{suffix}"),
                text_encoder=getattr(pipeline, f"text_encoder{suffix}"),
                truncate_long_prompts=recipe.more.get("long_prompt") != "chunk",
                returned_embeddings_type=returned,
                device=pipeline._execution_device,  # noqa: SLF001 -- a text encoder in host memory visits it
            )
            for suffix in (("", "_2") if self._has_two else ("",))
            if getattr(pipeline, f"text_encoder{suffix}") is not None
        ]

    def lengths(self, items: Sequence[Item]) -> list[int]:
        """Return how many tokens the encoded texts of each item take, a multiple of what the text encoder reads."""
        known: dict[str, int] = {}
        for text in {text for item in items for text in self._texts(item.recipe)}:
            known[text] = self._length(text)
        return [max(known[text] for text in self._texts(item.recipe)) for item in items]

    def with_encoded(self, arguments: Mapping[str, Any], route: Route, rows: Sequence[Item]) -> dict[str, Any]:
        """Return the arguments of a call with encoded texts in the place of texts; all rows are of one length.

        Args:
            arguments: Arguments of the pipeline.
            route: The family's route.
            rows: Rows of the call.
        """
        named = (route.arguments["prompt"], route.arguments.get("negative_prompt"))
        more = {name: value for name, value in arguments.items() if name not in named}
        (length,) = set(self.lengths(rows))
        recipes = [row.recipe for row in rows]
        known: dict[str, tuple[torch.Tensor, torch.Tensor | None]] = {}
        for text in {text for recipe in recipes for text in self._texts(recipe)}:
            known[text] = self._encoded(text, length)
        found = _joined([known[recipe.prompt or ""] for recipe in recipes], "")
        if self._is_guided:
            negative = _joined([known[recipe.negative_prompt or ""] for recipe in recipes], "negative_")
            if self._says_none(route, recipes[0]):
                negative = {name: torch.zeros_like(value) for name, value in negative.items()}
            found |= negative
        return {**more, **found}

    def _says_none(self, route: Route, recipe: Recipe) -> bool:
        """Whether no negative prompt stands for zeros, as in SDXL; the rows of a call are alike in that."""
        is_zero = getattr(self._pipeline.config, "force_zeros_for_empty_prompt", False)
        return route.empty_negative_differs and not recipe.negative_prompt and bool(is_zero)

    def _texts(self, recipe: Recipe) -> list[str]:
        return [recipe.prompt or "", *([recipe.negative_prompt or ""] if self._is_guided else [])]

    def _parsed(self, text: str) -> Any:
        """Return what compel reads in a text: the plain text alone where weights are not read."""
        from compel.prompt_parser import Conjunction, FlattenedPrompt

        compel = self._compels[0]
        words = with_vectors(text, self._tokens)
        if not self._has_weights:
            return Conjunction([FlattenedPrompt([(words, 1.0)])])
        try:
            parsed = compel.parse_prompt_string(as_compel(words))
        except Exception as error:
            raise GenerationFailed(f"prompt {text[:80]!r}: compel cannot read it: {error}") from error
        if len(parsed.prompts) > _CONJUNCTIONS_MAX:
            raise GenerationFailed(
                f"prompt {text[:80]!r}: .and() joins {len(parsed.prompts)}, over {_CONJUNCTIONS_MAX}"
            )
        return parsed

    def _length(self, text: str) -> int:
        provider = self._compels[0].conditioning_provider
        total = 0
        for prompt in self._parsed(text).prompts:
            parts = getattr(prompt, "prompts", [prompt])  # a blend is as long as its longest part
            total += max(
                len(
                    provider.get_token_ids_and_expand_weights(
                        [fragment.text for fragment in part.children],
                        [fragment.weight for fragment in part.children],
                        device="cpu",
                    )[0]
                )
                for part in parts
            )
        return total

    def _encoded(self, text: str, length: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the encoding of a text, filled up to a length, and its pooled form, where the pipeline takes one."""
        parsed = self._parsed(text)
        of_encoders = []
        for compel in self._compels:
            encoded = compel.build_conditioning_tensor_for_conjunction(parsed)[0]
            encoded = encoded[None] if encoded.ndim == 2 else encoded
            empty = compel.conditioning_provider.empty_z
            missing = (length - encoded.shape[1]) // empty.shape[1]
            of_encoders.append(torch.cat([encoded, *[empty.to(encoded)] * missing], dim=1))
        pooled = None
        if self._has_two:
            plain = " ".join(_plain(prompt) for prompt in parsed.prompts)
            pooled = self._compels[-1].conditioning_provider.get_pooled_embeddings([plain])
        return torch.cat(of_encoders, dim=-1), pooled


def _plain(prompt: Any) -> str:
    """Return the words of a parsed prompt, which the pooled form is made of: it takes no weights."""
    return " ".join(fragment.text for part in getattr(prompt, "prompts", [prompt]) for fragment in part.children)


def _joined(encoded: Sequence[tuple[torch.Tensor, torch.Tensor | None]], prefix: str) -> dict[str, torch.Tensor]:
    found = {f"{prefix}prompt_embeds": torch.cat([embeds for embeds, _ in encoded])}
    pooled = [one for _, one in encoded if one is not None]
    return {**found, f"{prefix}pooled_prompt_embeds": torch.cat(pooled)} if pooled else found


def with_tokens(arguments: Mapping[str, Any], route: Route, tokens: Mapping[str, str]) -> dict[str, Any]:
    """Return arguments whose texts have tokens in the place of words of textual inversions."""
    found = dict(arguments)
    for column in ("prompt", "negative_prompt"):
        name = route.arguments.get(column)
        if name in found and tokens:
            texts = found[name]
            is_one = isinstance(texts, str)
            replaced = [with_vectors(text, tokens) for text in ([texts] if is_one else texts)]
            found[name] = replaced[0] if is_one else replaced
    return found
