"""The package's functions and values, from their signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final

import sdbatch
from docs.generator.tables import markdown_table

MAKE: Final = (
    "init", "load_job", "check", "plan", "run", "redo", "grid", "plan_grid", "submit", "cancel", "build_manifest",
    "count_brief", "preview_brief", "build_brief", "list_models", "pin_models",
)  # fmt: skip
"""Functions that lead to a campaign; every other one looks at what is there, or makes files of it."""
LOOK: Final = tuple(name for name in sdbatch.__all__ if inspect.isfunction(getattr(sdbatch, name)) and name not in MAKE)
_HEADING: Final = re.compile(r"^(Args|Returns|Raises|Yields|Attributes):$", re.MULTILINE)
_ENTRY: Final = re.compile(r"^    (\w+): ", re.MULTILINE)


def functions(names: Sequence[str]) -> str:
    """Return a section for each function."""
    return "\n\n".join(_function(name, getattr(sdbatch, name)) for name in names)


def values() -> str:
    """Return a section for each exported class that is not an error."""
    kinds = [getattr(sdbatch, name) for name in sdbatch.__all__]
    return "\n\n".join(_value(kind) for kind in kinds if is_dataclass(kind) and inspect.isclass(kind))


def _function(name: str, function: Any) -> str:
    said, entries = _read(inspect.getdoc(function) or "")
    parts = [f"## {name}", f"`{name}({_arguments(function)})`", said]
    if entries.get("Args"):
        parts.append(markdown_table(("argument", "meaning"), [(f"`{key}`", text) for key, text in entries["Args"]]))
    if entries.get("Raises"):
        parts.append(
            "Raises "
            + "; ".join(f"`{key}`: {text.rstrip('.')}" if text else f"`{key}`" for key, text in entries["Raises"])
            + "."
        )
    return "\n\n".join(parts)


def _value(kind: Any) -> str:
    said, entries = _read(inspect.getdoc(kind) or "")
    meanings = dict(entries.get("Attributes", ()))
    rows = [(f"`{field.name}`", meanings.get(field.name, "")) for field in fields(kind)]
    return f"## {kind.__name__}\n\n{said}\n\n{markdown_table(('field', 'meaning'), rows)}"


def _arguments(function: Any) -> str:
    """Return a function's arguments with their defaults, without their types."""
    texts, is_keyword = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not is_keyword:
            is_keyword = True
            texts.append("*")
        is_given = parameter.default is parameter.empty
        texts.append(parameter.name if is_given else f"{parameter.name}={parameter.default!r}")
    return ", ".join(texts)


def _read(docstring: str) -> tuple[str, dict[str, list[tuple[str, str]]]]:
    """Return what a docstring says, and its lists of named things by heading."""
    head, *rest = _HEADING.split(docstring)
    lists = {}
    for heading, body in zip(rest[::2], rest[1::2], strict=True):
        _, *found = _ENTRY.split(body)
        named = [(key, " ".join(text.split())) for key, text in zip(found[::2], found[1::2], strict=True)]
        lists[heading] = named
    return "\n\n".join(" ".join(part.split()) for part in head.strip().split("\n\n")), lists
