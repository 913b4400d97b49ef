"""Every command with its arguments and options, from the parser itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterator
from typing import Any, Final

import typer

from docs.generator.tables import markdown_table
from sdbatch.cli import app

MAKE: Final = frozenset(
    {"init", "brief", "manifest", "models", "check", "plan", "run", "redo", "grid", "submit", "cancel"}
)
"""Commands that lead to a campaign, by their first word; every other one looks at one, or makes files of it."""
SHARED_BY: Final = 4
"""Commands that have an option, from which it is explained once for all of them."""


def every_command() -> Iterator[tuple[str, Any]]:
    """Yield each command by its words after `sdbatch`, in the order of their names."""
    yield from sorted(_below(typer.main.get_command(app), ""))


def _below(group: Any, words: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _below(command, f"{words}{name} ")
        else:
            yield f"{words}{name}", command


def shared_options() -> str:
    """Return the options that mean the same in several commands, a line each."""
    return markdown_table(("option", "meaning"), [(f"`{_as_typed(option)}`", said) for option, said in _shared()])


def to_make() -> str:
    """Return a section for each command that leads to a campaign."""
    return _sections(lambda words: words.split()[0] in MAKE)


def to_look() -> str:
    """Return a section for each command that looks at a campaign, or makes files of it."""
    return _sections(lambda words: words.split()[0] not in MAKE)


def _sections(is_wanted: Callable[[str], bool]) -> str:
    """Return a section for each command: its line, what it does, its arguments and the options that it has alone."""
    shared = set(_shared())
    found = [_section(words, command, shared) for words, command in every_command() if is_wanted(words)]
    return "\n\n".join(found)


def _shared() -> list[tuple[str, str]]:
    """Return what several commands have, in the order in which it is met first."""
    counts = Counter(record for _, command in every_command() for record in _records(command))
    return [record for record, number in counts.items() if number >= SHARED_BY and record[0].startswith("--")]


def _records(command: Any) -> list[tuple[str, str]]:
    """Return each argument and option with its help."""
    context = typer.Context(command)
    found = (parameter.get_help_record(context) for parameter in command.params)
    return [(record[0], " ".join(record[1].split())) for record in found if record]


def _section(words: str, command: Any, shared: Container[tuple[str, str]]) -> str:
    pieces = command.collect_usage_pieces(typer.Context(command))
    usage = " ".join(["sdbatch", words, *(piece.replace("}...", "").strip("{}") for piece in pieces)])
    said = " ".join((command.help or "").split())
    parts = [f"## {words}", f"`{usage}`", said]
    own = [record for record in _records(command) if record not in shared]
    if own:
        parts.append(markdown_table(("argument", "meaning"), [(f"`{_as_typed(name)}`", text) for name, text in own]))
    also = [record[0].split()[0].rstrip(",") for record in _records(command) if record in shared]
    if also:
        parts.append(f"Also: {', '.join(f'`{name}`' for name in also)}.")
    return "\n\n".join(parts)


def _as_typed(record: str) -> str:
    """Return an argument or option without the parser's words for types: choices as they are, a number as N."""
    if not record.startswith("-"):
        return record.partition(" ")[0]
    record = re.sub(r"<(\w+(\|\w+)+)>", r"\1", record)
    record = re.sub(r"<(int|float)( range)?>", "N", record)
    return re.sub(r" <[^>]*>", "", record).replace("<path>", "PATH")
