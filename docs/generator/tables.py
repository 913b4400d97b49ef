"""Tables of the code as Markdown: columns, families, formats, exit codes, outcomes, errors."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from sdbatch import errors, outcomes
from sdbatch.columns import COLUMNS, MANIFEST, Column, Range
from sdbatch.families import FAMILIES, Family, Route
from sdbatch.families.listing import frame_rule, size_rule
from sdbatch.named_formats import LOOKED_UP, SHIPPED, NamedFormat

_OWN = (
    "`x_*`",
    "text, numbers, booleans, dates, timestamps",
    "your own columns, carried unchanged into the metadata; timestamps in microseconds, years 1 to 9999",
)
_OR_TEXT = ", or string"
_IN_METADATA = {
    "prompt": "as the row or the job has it",
    "negative_prompt": "what the picture should not show",
    "images": "where its sources lie",
    "height": "pixels of the file",
    "width": "pixels of the file",
    "num_frames": "frames of the file; 1 for a picture",
    "fps": "playback rate of a clip",
    "scheduler": "diffusers' class that was used",
    "seed": "this output's own",
}
"""Meanings of columns that say something else of a finished asset than of a row that asks for one."""
_KEYFRAMES = {
    "": "",
    "any": " at any frames",
    "chained": ", first to last by segments",
}


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table. A `|` inside a cell is escaped."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def manifest_columns() -> str:
    """Return the manifest's columns, a line each."""
    return markdown_table(("column", "type", "meaning"), [*map(_manifest_column, MANIFEST.values()), _OWN])


def _manifest_column(column: Column) -> tuple[str, str, str]:
    shows_bound = isinstance(column.bound, Range) and not column.family_bounds and column.use != "seed"
    bound = f"; {column.bound}" if shows_bound else ""
    return f"`{column.name}`", _type(column.type), f"{column.meaning}{bound}"


def metadata_columns() -> str:
    """Return the metadata's columns in the order in which they are written, a line each."""
    rows = []
    for column in COLUMNS:
        if column.in_metadata or column.is_joined:
            origin = "asked for" if column.name in MANIFEST else "decided" if column.is_joined else "recorded"
            if column.is_measured:
                origin = "measured"
            meaning = _IN_METADATA.get(column.name, column.meaning)
            rows.append((f"`{column.name}`", _type(column.type).removesuffix(_OR_TEXT), origin, meaning))
    return markdown_table(
        ("column", "type", "what it is", "meaning"), [*rows, (_OWN[0], "as in the manifest", "yours", "")]
    )


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        item = "struct" if pa.types.is_struct(kind.value_type) else _type(kind.value_type)
        return f"list of {item}" + (_OR_TEXT if item == "string" else "")
    return {"int32": "int", "double": "float"}.get(str(kind), str(kind))


def families() -> str:
    """Return the families of models, a line each."""
    head = ("family (`_class_name` in model_index.json)", "tasks, and what each reads", "multiple", "frames", "needs")
    return markdown_table(head, map(_family, FAMILIES.values()))


def _family(family: Family) -> tuple[str, ...]:
    tasks = "; ".join(_task(name, routes) for name, routes in family.tasks.items())
    needs = sorted({f"`{name}`" for routes in family.tasks.values() for route in routes for name in route.requires})
    return (
        f"{family.title} (`{family.class_name}`)",
        tasks,
        size_rule(family).removeprefix("multiples of "),
        frame_rule(family) or "-",
        ", ".join(needs) or "-",
    )


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


def named_formats() -> str:
    """Return the formats that a delivery or a brief may name, a line each."""
    table = markdown_table(("format", "kind", "pixels", "type", "bytes"), map(_named_format, SHIPPED.values()))
    return f"Sizes and bounds of platforms change; these were looked up on {LOOKED_UP}.\n\n{table}"


def _named_format(one: NamedFormat) -> tuple[str, ...]:
    bound = "-" if one.bytes_max is None else f"at most {one.bytes_max:,}"
    return f"`{one.name}`", one.kind, f"{one.width} x {one.height}", one.type, bound


def exit_codes() -> str:
    """Return what the command line's exit codes mean, from its own help."""
    from sdbatch.cli import commands

    (_, _, text) = (commands.__doc__ or "").partition("Exit codes: ")
    said = [part.strip().partition(" ") for part in " ".join(text.split()).rstrip(".").split(";")]
    return markdown_table(("exit code", "meaning"), [(f"`{code}`", meaning) for code, _, meaning in said])


_THEN = {
    "alone": "each row runs in a call of its own",
    "halve": "the call is made again with half the rows",
    "again": "the work is given to a worker again; no row is blamed",
    "bisect": "the rows of that call run alone, until the one to blame is known",
    "end model": "the model's rows are left for a later run",
    "stop": "the run stops",
}


def _outcome(kind: str, outcome: outcomes.Outcome) -> tuple[str, ...]:
    """Return the line of one kind of failure: what follows, what is recorded, what happens to worker and node."""
    recorded = {None: "-", "": "its own class"}.get(outcome.records, f"`{outcome.records}`")
    if outcome.solo_failures_max:
        recorded += f" after {outcome.solo_failures_max} alone"
    worker = "its node is left" if outcome.leave_node else "replaced" if outcome.replace_worker else "goes on"
    return f"`{kind}`", _THEN[outcome.then], recorded, worker


def outcomes_table() -> str:
    """Return what follows from every way in which a call or a unit can fail."""
    rows = [_outcome(kind, outcome) for kind, outcome in outcomes.OUTCOMES.items()]
    return markdown_table(("failure", "the work", "a row is recorded as", "the worker"), rows)


def error_classes() -> str:
    """Return the classes of errors in the order of their tree, a line each."""
    rows = []
    for depth, kind in _tree(errors.SdbatchError, 0):
        said = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
        again = "yes" if getattr(kind, "retryable", False) else ""
        code = str(kind.exit_code) if not issubclass(kind, errors.RowError) else "3"
        rows.append((f"{'&nbsp;' * 4 * depth}`{kind.__name__}`", said, code, again))
    return markdown_table(("class", "what happened", "exit code", "tried again by the next run"), rows)


def _tree(kind: type[errors.SdbatchError], depth: int) -> Iterator[tuple[int, type[errors.SdbatchError]]]:
    yield depth, kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child, depth + 1)
