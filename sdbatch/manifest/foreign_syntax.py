"""Prompt syntax of other programs, which our models read as plain text.

text of a prompt --> foreign_syntax() --> what was found: a snippet, and what it means elsewhere

A prompt copied out of A1111, ComfyUI, NovelAI, compel or Midjourney gives a picture, and not the one that was meant.
Plain prose with parentheses, colons, ratios, capitals and dashes is no syntax. Every repetition is bounded, so that no
text of a stranger takes long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

_HINTS: Final = ("(", "[", "{", "<", "\\", "__", "BREAK", "AND", "::", "--", "dding:", "DDING:")
"""One of these is in every text that holds any syntax, so most batches are passed over in one look."""
_HINTS_BY_SIGN: Final = tuple((hint[-1], hint) for hint in _HINTS)
"""A single sign is found many times faster than several, so the last one of each hint is looked for first."""


class Syntax(NamedTuple):
    """One kind of syntax.

    Attributes:
        pattern: What it looks like.
        message: What it is, after the column's name and the snippet.
        is_weight: Whether a model entry with `prompt_weights: compel` reads it.
    """

    pattern: re.Pattern[str]
    message: str
    is_weight: bool = False


def _syntax(pattern: str, meaning: str, *, is_weight: bool = False) -> Syntax:
    return Syntax(re.compile(pattern), f"{meaning}; the model reads it as plain text", is_weight)


_LORA: Final = "is how A1111 and ComfyUI attach a LoRA or a hypernetwork (here: the column `loras`)"
TABLE: Final[Sequence[Syntax]] = (
    _syntax(r"(?i)<(?:lora|lyco|loha|locon|hypernet|hypernetwork):[^<>\n]{1,200}>", _LORA),
    # After a digit it is a ratio or a time: (16:9), (at 10:30), (John 3:16); before a blank, prose: (step: 3).
    _syntax(
        r"\([^()\n]{0,200}[^()\d\s:]\s?:(?:\s?[+-]?\d?\.\d{1,9}|[+-]?\d)\s?\)",
        "is a weight of A1111 or ComfyUI",
        is_weight=True,
    ),
    _syntax(r"\({2,9}[^()\n]{1,200}\){2,9}", "is emphasis of A1111"),
    _syntax(r"\[[^\[\]\n:|]{0,200}[:|][^\[\]\n]{0,200}\]", "is prompt editing of A1111"),
    # Neither [sic], [1] nor [...] is meant as emphasis.
    _syntax(r"\[{1,9}(?!(?:sic|\d{1,9}|\.\.\.|…|\s?)\])[^\[\]\n]{1,200}\]{1,9}", "is emphasis of A1111 (less of it)"),
    _syntax(r"\{[^{}\n|]{0,200}\|[^{}\n]{0,200}\}", "is a choice of dynamic prompts or ComfyUI"),
    _syntax(r"\{{1,9}[^{}|\n]{1,200}\}{1,9}", "is a placeholder that nothing fills in, or emphasis of NovelAI"),
    _syntax(r"(?<!\w)__[A-Za-z0-9][\w/*.-]{0,80}?__(?!\w)", "is a wildcard of dynamic prompts"),
    _syntax(r"(?i)(?<!\w)embedding:[\w./\\-]{1,200}", "is how ComfyUI names a textual inversion"),
    # In a line of capitals both are words: COFFEE BREAK, SALT AND PEPPER.
    _syntax(r"(?<![A-Z]{2}[ ,])(?<!\w)BREAK(?!\w)(?![ ,]{1,3}[A-Z]{2})", "begins a new chunk in A1111"),
    _syntax(r"(?<![A-Z]{2}[ ,])(?<!\w)AND(?!\w)(?![ ,]{1,3}[A-Z]{2})", "joins several prompts in A1111"),
    _syntax(r"\\[()]", "is an escaped bracket of A1111 or ComfyUI", is_weight=True),
    _syntax(r"\\[\[\]{}]", "is an escaped bracket of A1111 or ComfyUI"),
    _syntax(r"\)(?:\++|--+|[0-2]\.\d+)(?=[\s,.;]|$)|\)\.(?:blend|and|swap)\(", "is a weight of compel", is_weight=True),
    _syntax(
        r"(?<!\S)--(?:ar|aspect|chaos|cref|iw|niji|no|q|quality|seed|sref|style|stylize|s|tile|v|weird)(?!\S)",
        "is a parameter of Midjourney",
    ),
    _syntax(r"\w::\s?-?\d", "is a weight of Midjourney"),
)


def foreign_syntax(text: str, *, reads_weights: bool = False) -> Iterator[tuple[str, str]]:
    """Yield each kind of syntax in a text, once: the first snippet, and what it is.

    Args:
        text: A prompt.
        reads_weights: Whether weights are read, so that they are not foreign.
    """
    if not _may_hold(text):
        return
    left = text
    for syntax in TABLE:
        found = syntax.pattern.search(left)
        if found:
            if not (reads_weights and syntax.is_weight):
                yield found.group(), syntax.message
            # What one kind explains is not told again as another: <lora:x:1> is no weight, [a:b:0.5] no emphasis.
            left = syntax.pattern.sub(" ", left)


def may_hold_syntax(texts: Sequence[str | None]) -> bool:
    """Whether any of some texts may hold syntax; one look at all of them is faster than a look at each."""
    return _may_hold("\n".join(filter(None, texts)))


def _may_hold(text: str) -> bool:
    return any(sign in text and hint in text for sign, hint in _HINTS_BY_SIGN)
