"""Which of several files with one module's weights the loader reads.

    names in a folder --> WeightNames.of() --> by variant: the one file, or the index of the shards
    of every component, with what the job wants --> chosen_word() --> "fp16", or "" for the plain files

A repository often holds the weights of one module several times: plain, as `fp16`, as `ema`. Plain files are named
`model.safetensors` by transformers and `diffusion_pytorch_model.safetensors` by diffusers; a variant's word stands
before the last ending. Pure, on names alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sdbatch.errors import ModelError

BASES: Final = ("diffusion_pytorch_model", "model")
"""Beginnings of the names of weights: diffusers' and transformers'."""

HALF: Final = "fp16"
_SIXTEEN_BITS: Final = frozenset({"float16", "bfloat16"})
_WORD: Final = r"[A-Za-z0-9_-]+"
_FILE: Final = re.compile(rf"({'|'.join(BASES)})(?:\.({_WORD}))?\.safetensors")
# The second form is what diffusers wrote before 0.26 and still reads.
_INDEX: Final = re.compile(rf"({'|'.join(BASES)})\.safetensors(?:\.index(?:\.({_WORD}))?|\.({_WORD})\.index)\.json")
SHARD: Final = re.compile(r"-\d{5}-of-\d{5}")
"""Part of the name of a file that holds some of a module's weights."""
_ANY_INDEX: Final = re.compile(r".*\.index(\..+)?\.json|.*\..+\.index\.json")


@dataclass(frozen=True, slots=True)
class WeightNames:
    """Names of one module's weights, by the variant's word; the plain ones stand under "".

    Attributes:
        files: Names that hold all weights in one file.
        indexes: Names of indexes, which name the shards.
        base: Whose names they are; see `BASES`.
    """

    files: Mapping[str, str]
    indexes: Mapping[str, str]
    base: str

    @classmethod
    def of(cls, names: Iterable[str]) -> WeightNames:
        """Find them among the names in a module's folder; where both libraries' are there, diffusers' count."""
        files: dict[str, dict[str, str]] = {base: {} for base in BASES}
        indexes: dict[str, dict[str, str]] = {base: {} for base in BASES}
        for name in names:
            if parts := _parts(name):
                base, word, is_index = parts
                (indexes if is_index else files)[base][word] = name
        base = next((base for base in BASES if files[base] or indexes[base]), BASES[0])
        return cls(files[base], indexes[base], base)

    @property
    def words(self) -> frozenset[str]:
        """The variants that are there."""
        return frozenset(self.files) | frozenset(self.indexes)

    def name_of(self, word: str) -> str:
        """Return the file, or the index, that the loader reads of a variant that is there.

        Where one has both, diffusers reads the shards and transformers the one file.
        """
        first, second = (self.indexes, self.files) if self.base == BASES[0] else (self.files, self.indexes)
        return first.get(word) or second[word]

    def word_for(self, word: str) -> str | None:
        """Return the variant that is read where a model's is `word`: the plain files stand in for one that lacks it."""
        return next((known for known in (word, "") if known in self.words), None)


def word_in(name: str) -> str:
    """Return the variant's word in the name of a file of weights, or of an index; "" in any other."""
    parts = _parts(name)
    return parts[1] if parts else ""


def is_weights(name: str) -> bool:
    """Whether a name is one of weights or of an index, which are read only where they were chosen."""
    return name.endswith(".safetensors") or _ANY_INDEX.fullmatch(name) is not None


def plain_path(path: str) -> str:
    """Return the path at which a loader that was told of no variant looks for a file that was chosen."""
    folder, slash, name = path.rpartition("/")
    parts = _parts(name)
    if parts is None:
        return path
    return f"{folder}{slash}{parts[0]}.safetensors{'.index.json' if parts[2] else ''}"


def _parts(name: str) -> tuple[str, str, bool] | None:
    """Return base, variant's word, and whether it is an index, of a name; None for shards and whatever else."""
    if (file := _FILE.fullmatch(name)) and not SHARD.search(file[2] or ""):
        return file[1], file[2] or "", False
    index = _INDEX.fullmatch(name)
    return (index[1], index[2] or index[3] or "", True) if index else None


def chosen_word(modules: Mapping[str, WeightNames], wanted: str, dtype: str, url: str) -> str:
    """Return the variant that a model is read in.

    Args:
        modules: The weights of each module that is read, by its name.
        wanted: The entry's `variant`: `auto`, a word, or "" for the plain files.
        dtype: The entry's; `auto` prefers the plain files.
        url: The folder, for the message.

    Raises:
        ModelError: When no module has the variant that the job names.
    """
    words = [module.words for module in modules.values() if module.words]
    if wanted == "auto":
        is_half_wanted = dtype in _SIXTEEN_BITS or not all("" in known for known in words)
        return HALF if is_half_wanted and any(HALF in known for known in words) else ""
    if words and not any(wanted in known for known in words):
        there = sorted(set().union(*words))
        raise ModelError(f"{url}: variant {wanted!r} is not there; there are {', '.join(map(repr, there))}")
    return wanted
