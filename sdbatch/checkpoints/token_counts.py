"""Counts the tokens of prompts with the tokenizer that lies in a model's folder, without torch or the model.

    ModelInfo --> token_counter() --> TokenCounter.excess(recipe) --> (tokens, limit) of a prompt that is cut

Where the folder is in a bucket, or holds a tokenizer of another form, nothing is counted here; the worker counts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sdbatch.checkpoints.builtins import BUILTINS, SHIPPED, builtin_folder
from sdbatch.checkpoints.info import ModelInfo
from sdbatch.checkpoints.single_files import CLIP_WORDS
from sdbatch.prompt_syntax import counted
from sdbatch.recipe import parse_recipe
from sdbatch.storage import parse_url

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE_BYTES_MAX: Final = 64 << 20
REMEMBERED_MAX: Final = 65_536
_CLIP_WORDS: Final = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # as OpenAI's own
)


class TokenCounter:
    """Counts tokens as the model's own text encoder sees them, start and end included.

    Args:
        model: Whose prompts.
        tokenizer: Its tokenizer.
        num_added: Start and end, where the tokenizer itself adds none.
        longest: Tokens that the tokenizer says its encoder reads; None when it does not say.
    """

    def __init__(self, model: ModelInfo, tokenizer: Tokenizer, num_added: int, longest: int | None) -> None:
        self._family = model.family
        self._tokenizer = tokenizer
        self._num_added = num_added
        self._longest = longest
        self._known: dict[str, int] = {}
        limits = [longest, model.family.tokens_max, *(route.tokens_max for route in model.family.routes)]
        self._num_vectors = model.embedding_vectors
        self.bytes_min = -1 if self._num_vectors else min(filter(None, limits), default=0) - 2
        """A text of fewer bytes fits: a token is a byte at least, and start and end are two. Of a model with textual
        inversions that is not known, since a word may stand for many tokens."""

    def excess(self, recipe_text: str) -> tuple[int, int] | None:
        """Return tokens and limit of a recipe's prompt when the text encoder reads fewer; else None."""
        recipe = parse_recipe(recipe_text)
        if not recipe.prompt or recipe.more.get("long_prompt") == "chunk":
            return None
        tokens_max = self._family.route_of(recipe).tokens_max or self._family.tokens_max
        limits = [recipe.parameters.get("max_sequence_length") or tokens_max, self._longest]
        limit = min(filter(None, limits), default=None)
        if limit is None:
            return None
        vectors = {word: self._num_vectors[word] for word in recipe.more.get("embeddings", {})}
        text, num_vectors = counted(recipe.prompt, vectors, has_weights="prompt_weights" in recipe.more)
        tokens = self._count(text) + num_vectors
        return (tokens, limit) if tokens > limit else None

    def _count(self, text: str) -> int:
        if text not in self._known:
            if len(self._known) >= REMEMBERED_MAX:
                self._known.clear()
            self._known[text] = len(self._tokenizer.encode(text).ids) + self._num_added
        return self._known[text]


def token_counter(model: ModelInfo) -> TokenCounter | None:
    """Return the counter of a model, None where its tokenizer is not at hand."""
    folder = _folder(model)
    if folder is None:
        return None
    named = folder / model.family.tokenizer
    place = named if named.is_dir() else folder / "tokenizer"
    try:
        settings = json.loads(_text(place / "tokenizer_config.json"))
        tokenizer, num_added = _read_tokenizer(_words_of(place, model))
    # tokenizers raises a bare Exception for what it cannot read; then the worker counts.
    except Exception:  # noqa: BLE001
        return None
    longest = settings.get("model_max_length") if isinstance(settings, dict) else None
    # transformers writes 10^30 where there is none.
    known = int(longest) if isinstance(longest, int | float) and 0 < longest < 1e9 else None
    return TokenCounter(model, tokenizer, num_added, known)


def _words_of(place: Path, model: ModelInfo) -> Path:
    """Return the folder of a tokenizer's vocabulary: of a single file's CLIP, the package's own."""
    has_settings_alone = model.single_file is not None and len(list(place.iterdir())) == 1
    return CLIP_WORDS if has_settings_alone else place


def _folder(model: ModelInfo) -> Path | None:
    if model.single_file is not None:
        configs = parse_url(model.single_file.configs)
        return Path(configs.path) if configs.is_local and Path(configs.path).is_dir() else None
    name = model.path.removeprefix("builtin:")
    if name != model.path:
        folder = Path(builtin_folder(name)) if name in {*SHIPPED, *BUILTINS} else None
    else:
        location = parse_url(model.path)
        folder = Path(location.path) if location.is_local else None
    return folder if folder is not None and folder.is_dir() else None


def _text(path: Path) -> str:
    if path.stat().st_size > FILE_BYTES_MAX:
        raise ValueError(f"{path} is over {FILE_BYTES_MAX} bytes")
    return path.read_text(encoding="utf-8")


def _read_tokenizer(folder: Path) -> tuple[Any, int]:
    """Return the tokenizer of a folder, and how many tokens are to be added to its counts."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_str(_text(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer, 0
    # CLIP's older form, as Stable Diffusion 1.x and XL have it.
    vocabulary = json.loads(_text(folder / "vocab.json"))
    merges = [tuple(line.split()) for line in _text(folder / "merges.txt").splitlines() if not line.startswith("#")]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=[pair for pair in merges if len(pair) == 2],
            unk_token="<|endoftext|>",  # noqa: S106 -- no password
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
        )
    )
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer, 2
