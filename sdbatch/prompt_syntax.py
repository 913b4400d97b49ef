"""What a prompt says beside plain words, where its model's entry allows that: weights, and words of textual inversions.

    text --> TextReader.read() --> TextUse    as_compel() --> text in compel's form    with_vectors() --> words replaced

One reading for the plan, which keys rows by it, and for the worker, which encodes them by it. Without torch.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

_WEIGHTED: Final = re.compile(r"[()]|\S[+-]+(?=[\s,.;:!?)]|$)")
"""A bracket, or `+` or `-` at the end of a word: without one of them compel changes nothing of a text."""

_NUMBER_INSIDE: Final = re.compile(r"(?<![\\\d\s]):\s?(\d{0,3}(?:\.\d{1,9}|\d))\s?\)")
"""A1111's weight, whose number stands in the brackets; after a digit it is a ratio or a time: (16:9), (at 10:30)."""

_MORE_DIGITS: Final = re.compile(r"\.?\d")
"""Digits of the text right behind a weight in A1111's form, which would be read as more of the number in compel's."""

_WEIGHT: Final = re.compile(r"(?<!\\)\)(?:\d{0,3}\.\d{1,9}|\d|[+-]+)?|(?<!\\)\(")

_UNSERVED: Final = (".swap(", "withLora(", "useLora(")


class TextUse(NamedTuple):
    """What one text says beside plain words.

    Attributes:
        has_weights: Whether it may hold weights.
        unserved: What it asks compel for that is not served: `.swap()` needs attention of its own; "" for nothing.
        words: Words of textual inversions in it, sorted.
    """

    has_weights: bool
    unserved: str
    words: tuple[str, ...]


class TextReader:
    """Reads texts.

    Args:
        words: Words of textual inversions.
    """

    def __init__(self, words: Collection[str]) -> None:
        self._words = words_pattern(words) if words else None

    def read(self, text: str) -> TextUse:
        """Return what a text says beside plain words."""
        words = tuple(sorted(set(self._words.findall(text)))) if self._words else ()
        unserved = next((one for one in _UNSERVED if one in text), "")
        return TextUse(_WEIGHTED.search(text) is not None, unserved, words)


def words_pattern(words: Collection[str]) -> re.Pattern[str]:
    """Return what finds words of textual inversions in a text, as they are written, and not within longer words."""
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    return re.compile("|".join(map(_alone, longest_first)))


def _alone(word: str) -> str:
    before = r"(?<!\w)" if word[0].isalnum() or word[0] == "_" else ""
    after = r"(?!\w)" if word[-1].isalnum() or word[-1] == "_" else ""
    return f"{before}{re.escape(word)}{after}"


def with_vectors(text: str, tokens: Mapping[str, str]) -> str:
    """Return a text with other text in the place of each word of a textual inversion."""
    return words_pattern(tokens).sub(lambda found: tokens[found.group()], text) if tokens else text


def counted(text: str, num_vectors: Mapping[str, int], *, has_weights: bool) -> tuple[str, int]:
    """Return what a tokenizer is to count of a text, and the tokens that textual inversions add to that.

    Args:
        text: A prompt.
        num_vectors: Vectors of each word of a textual inversion that is in it; a vector takes a token's place.
        has_weights: Whether weights are read, and so are no text.
    """
    plain = without_weights(text) if has_weights else text
    if not num_vectors:
        return plain, 0
    words = words_pattern(num_vectors).findall(plain)
    return with_vectors(plain, dict.fromkeys(num_vectors, " ")), sum(num_vectors[word] for word in words)


def as_compel(text: str) -> str:
    """Return a text in compel's form: A1111's `(beach:1.4)` is compel's `(beach)1.4`."""

    def outside(found: re.Match[str]) -> str:
        before = text[: found.start()]
        if before.count("(") <= before.count(")"):
            return found.group()
        return f"){found.group(1)}{' ' if _MORE_DIGITS.match(text, found.end()) else ''}"

    return _NUMBER_INSIDE.sub(outside, text)


def without_weights(text: str) -> str:
    """Return a text without its weights, to count what is left."""
    return _WEIGHT.sub("", as_compel(text))
