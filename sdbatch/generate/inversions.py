"""Lets the words of textual inversions stand for their vectors while a call runs, and no longer.

    recipe's embeddings --> inverted(): tokenizers and text encoders know them --> prompts with_vectors() --> as before

A word becomes tokens of its own, whose numbers lie behind the text encoder's vocabulary; its weights stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from tokenizers import AddedToken

from sdbatch.checkpoints.embeddings import OF_TWO
from sdbatch.errors import ModelLoadFailed

INVERSIONS_MAX: Final = 16
"""Sets of textual inversions whose tokenizers and vectors stay in memory."""


class Inversion:
    """The textual inversions of one recipe, ready for a call.

    Attributes:
        tokens: Text that stands for each word in a prompt.
        tokenizers: Copies of the pipeline's, by name, that know the tokens.
        vectors: Vectors of all tokens, by the name of the text encoder.
    """

    def __init__(self, pipeline: Any, files: Mapping[str, Path]) -> None:
        """Read the files.

        Args:
            pipeline: Pipeline of the model.
            files: File of each word.

        Raises:
            ModelLoadFailed: When the vectors are none of its text encoders.
        """
        found = {word: _vectors(word, file) for word, file in files.items()}
        counts = {word: len(next(iter(of_word.values()))) for word, of_word in found.items()}
        names = {
            word: [f"zq{number}inversion{place}qz" for place in range(counts[word])]
            for number, word in enumerate(files)
        }
        self.tokens: Mapping[str, str] = {word: " ".join(of_word) for word, of_word in names.items()}
        self.tokenizers: dict[str, Any] = {}
        self.vectors: dict[str, torch.Tensor] = {}
        added = [
            AddedToken(name, normalized=False, lstrip=True, rstrip=True)
            for of_word in names.values()
            for name in of_word
        ]
        for suffix in ("", "_2"):
            tokenizer, encoder = (getattr(pipeline, f"{kind}{suffix}", None) for kind in ("tokenizer", "text_encoder"))
            if tokenizer is None or encoder is None:
                continue
            of_encoder = [of_word.get(f"text_encoder{suffix}") for of_word in found.values()]
            width = encoder.config.hidden_size
            for word, vectors in zip(found, of_encoder, strict=True):
                if vectors is None or vectors.shape[-1] != width:
                    has = "none" if vectors is None else f"vectors of {vectors.shape[-1]} numbers"
                    raise ModelLoadFailed(
                        f"embeddings.{word}: text_encoder{suffix} takes {width} numbers; it has {has}"
                    )
            own = copy.deepcopy(tokenizer)
            own.add_tokens(added)
            self.tokenizers[f"tokenizer{suffix}"] = own
            self.vectors[f"text_encoder{suffix}"] = torch.cat([one for one in of_encoder if one is not None])


class _Extended(torch.nn.Module):
    """A text encoder's table of words, with further words behind its last one.

    Args:
        own: The table.
        vectors: Of the further words.
        first: Number of the first of them.
    """

    def __init__(self, own: torch.nn.Module, vectors: torch.Tensor, first: int) -> None:
        super().__init__()
        self.own = own
        self._vectors = vectors
        self._first = first

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        known = self.own(ids.clamp(max=self._first - 1))
        vectors = self._vectors.to(known.device, known.dtype)[(ids - self._first).clamp(min=0)]
        return torch.where((ids < self._first)[..., None], known, vectors)


@contextmanager
def inverted(pipeline: Any, inversion: Inversion | None) -> Iterator[None]:
    """Let a pipeline's tokenizers and text encoders know the words while the block runs; None leaves all as it is."""
    if inversion is None:
        yield
        return
    before: list[tuple[Any, str, Any]] = []
    try:
        for name, tokenizer in inversion.tokenizers.items():
            own = getattr(pipeline, name)
            encoder = getattr(pipeline, name.replace("tokenizer", "text_encoder"))
            text = getattr(encoder, "text_model", encoder)
            before += [
                (pipeline, name, own),
                (text.embeddings, "token_embedding", text.embeddings.token_embedding),
                (text, "eos_token_id", text.eos_token_id),
            ]
            setattr(pipeline, name, tokenizer)
            vectors = inversion.vectors[name.replace("tokenizer", "text_encoder")]
            text.embeddings.token_embedding = _Extended(text.embeddings.token_embedding, vectors, len(own))
            # Where a configuration says 2, the end is looked for as the highest number, which is now another token's.
            text.eos_token_id = own.eos_token_id
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)


def _vectors(word: str, file: Path) -> dict[str, torch.Tensor]:
    """Return the vectors of a file by the text encoder that they are for, each of N vectors."""
    try:
        tensors = load_file(file)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelLoadFailed(f"embeddings.{word} ({file.name}) cannot be read: {error}") from error
    names = OF_TWO if tensors.keys() >= OF_TWO.keys() else dict.fromkeys(tensors, "text_encoder")
    return {encoder: tensors[name].reshape(-1, tensors[name].shape[-1]) for name, encoder in names.items()}
