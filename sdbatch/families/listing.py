"""The family table as people read it, in the README: `make families` writes it anew.

FAMILIES --> markdown() --> between the marks of README.md
"""

from __future__ import annotations

import re

from sdbatch.families import FAMILIES, Family, Route

BEGIN, END = "<!-- families: made by `make families` -->", "<!-- /families -->"
_KEYFRAMES = {
    "": "",
    "any": " at any frames",
    "chained": ", first to last by segments",
}


def frame_rule(family: Family) -> str:
    """Return the numbers of frames a clip of a family may have, as text; "" where it makes no clips."""
    if not family.frame_multiple:
        return ""
    form = "any number" if family.frame_multiple == 1 else f"{family.frame_multiple} k + 1"
    return f"{form} up to {family.frames_max}"


def markdown() -> str:
    """Return the table of families: a line each."""
    lines = [
        "| family (`_class_name` in model_index.json) | tasks, and what each reads | multiple | frames | needs |",
        "|---|---|---|---|---|",
    ]
    for family in FAMILIES.values():
        tasks = "; ".join(_task(name, rows) for name, rows in family.tasks.items())
        needs = sorted({f"`{name}`" for rows in family.tasks.values() for row in rows for name in row.requires})
        cells = (
            f"{family.title} (`{family.class_name}`)",
            tasks,
            f"{family.size_multiple}",
            frame_rule(family) or "-",
            ", ".join(needs) or "-",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _task(name: str, rows: tuple[Route, ...]) -> str:
    routes = [_route(row) for row in rows]
    sources = dict.fromkeys(route or "text" for route in routes)
    return f"{name} ({' or '.join(sources)})" if any(routes) else name


def _route(row: Route) -> str:
    """Return the sources a route takes, as text; "" for text alone."""
    least, most = row.images
    images = f"{least}" if least == most else f"{least} to {most}"
    enlarged = f" of any size, enlarged {row.enlarges} times" if row.enlarges > 1 else ""
    parts = [f"{images} image{'s' if most > 1 else ''}{_KEYFRAMES[row.keyframes]}{enlarged}"] if most else []
    parts += sorted(row.sources)
    return " + ".join(parts)


def in_readme(text: str) -> str:
    """Return a README with the table as it should be.

    Raises:
        ValueError: When the marks are not there.
    """
    return between_marks(text, BEGIN, END, markdown())


def between_marks(text: str, begin: str, end: str, content: str) -> str:
    """Return a text with other content between two marks, which must be there once. Raises ValueError."""
    replaced, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n\n{content}\n\n{end}", text, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{count} tables are marked with {begin}; 1 is needed")
    return replaced
