"""What git ignores in a folder: its .gitignore files, those of the folders above it, and git's own exclude list.

    Ignored(folder) --> enter() each folder on the way down --> covers(path)

.rayignore counts too, as it does for Ray. git itself is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pathspec import PathSpec

IGNORE_FILES = (".gitignore", ".rayignore")


class Ignored:
    """The ignore rules that hold in a folder; the last one that fits a path decides.

    Args:
        folder: The folder, absolute.
    """

    def __init__(self, folder: Path) -> None:
        self._rules: list[tuple[Path, PathSpec[Any]]] = []
        repository = next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)
        if repository is not None:
            self._read(repository / ".git" / "info" / "exclude", repository)
            above = [parent for parent in folder.parents if parent.is_relative_to(repository)]
            for parent in reversed(above):
                self.enter(parent)

    def enter(self, folder: Path) -> None:
        """Read the rules of a folder; they hold beneath it."""
        for name in IGNORE_FILES:
            self._read(folder / name, folder)

    def covers(self, path: Path, *, is_folder: bool) -> bool:
        """Whether a path is ignored; of an ignored folder nothing is looked at."""
        for base, rules in reversed(self._rules):
            decided = decision(rules, base, path, is_folder=is_folder)
            if decided is not None:
                return decided
        return False

    def _read(self, path: Path, base: Path) -> None:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return  # not there, as mostly
        self._rules.append((base, rules_of(lines)))


def rules_of(lines: Iterable[str]) -> PathSpec[Any]:
    """Return the rules that lines of a .gitignore stand for."""
    return PathSpec.from_lines("gitignore", lines)


def decision(rules: PathSpec[Any], base: Path, path: Path, *, is_folder: bool) -> bool | None:
    """Return whether rules that hold in the folder `base` ignore a path; None where none of them fits."""
    if not path.is_relative_to(base):
        return None
    name = path.relative_to(base).as_posix() + ("/" if is_folder else "")
    fitting = (rule.include for rule in reversed(rules.patterns) if rule.include is not None and rule.regex.match(name))
    return next(map(bool, fitting), None)
