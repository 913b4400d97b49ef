"""The code blocks of the documentation, with the marks that stand over them.

    a page --> blocks_of() --> Block, Block, ...

A block that is not run has a reason over it, in a comment that readers do not see: `<!-- not run: needs a GPU -->`.
`<!-- first: COMMAND -->` over a block is run before it. A block with a title is the file of that name.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
_FENCE: Final = re.compile(r'^( *)```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?$')
_MARK: Final = re.compile(r"^ *<!-- (?P<kind>not run|first): (?P<text>.+) -->$")
_JOINTS: Final = frozenset({"&&", "||", ";", "|", ">", ">>", "<", "&"})
_ASSIGNMENT: Final = re.compile(r"[A-Z_]+=.*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block.

    Attributes:
        page: The page, relative to the repository.
        line: Line of its fence, from 1.
        language: What stands behind the fence.
        title: Name of the file that it is; None where it is none.
        text: What stands inside.
        not_run: Why it is not run; None where it is.
        first: Commands that are run before it.
    """

    page: str
    line: int
    language: str
    title: str | None
    text: str
    not_run: str | None
    first: tuple[str, ...]

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return the README and every page of the documentation."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks_of(page: Path, root: Path = ROOT) -> Iterator[Block]:
    """Yield the fenced blocks of a page, which is named relative to a root."""
    lines = page.read_text(encoding="utf-8").splitlines()
    marks: dict[str, list[str]] = {}
    number = 0
    while number < len(lines):
        line = lines[number]
        if mark := _MARK.match(line):
            marks.setdefault(mark["kind"], []).append(mark["text"])
        elif line.lstrip().startswith("```"):
            fence = _FENCE.match(line)
            assert fence, f'{page.relative_to(root)}:{number + 1}: a fence is ```language or ```language title="NAME"'
            end = next(later for later in range(number + 1, len(lines)) if lines[later].strip() == "```")
            yield Block(
                page=str(page.relative_to(root)),
                line=number + 1,
                language=fence["language"],
                title=fence["title"],
                text="\n".join(lines[number + 1 : end]) + "\n",
                not_run=next(iter(marks.get("not run", ())), None),
                first=tuple(marks.get("first", ())),
            )
            marks, number = {}, end
        elif line.strip():
            marks = {}
        number += 1


def all_blocks() -> list[Block]:
    """Return the blocks of all pages."""
    return [block for page in pages() for block in blocks_of(page)]


def commands_in(text: str) -> Iterator[list[str]]:
    """Yield the words after `sdbatch` of each command in a piece of shell."""
    for line in text.replace("\\\n", " ").splitlines():
        reader = shlex.shlex(line, posix=True, punctuation_chars=True)
        reader.whitespace_split = True
        command: list[str] = []
        for word in [*reader, ";"]:
            if word not in _JOINTS:
                command.append(word)
                continue
            while command and _ASSIGNMENT.fullmatch(command[0]):
                del command[0]
            if command and command[0] == "sdbatch":
                yield command[1:]
            command = []
