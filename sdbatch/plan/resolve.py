"""Rows become requests: precedence, what the family can make, the recipe, its key.

    columns of rows + job + models --> Resolver.resolve() --> ResolvedRows, and RowProblems

Rows differ mostly in prompt and seed; everything else is settled once per distinct combination (`SettledGroup`). The
rows of a batch that share one are resolved together, column by column, so that a million rows cost seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import pyarrow as pa

from sdbatch.checkpoints import LoraInfo, ModelInfo
from sdbatch.columns import SOURCE_ROLES, named, seed_problem
from sdbatch.families import Given
from sdbatch.families.peaks import OutputSize
from sdbatch.job import Job
from sdbatch.plan.batch_key import row_batch_keys
from sdbatch.plan.problems import RowProblem
from sdbatch.plan.seeds import row_seeds
from sdbatch.plan.settings import SETTINGS, RejectedGroup, SettledGroup, Settler
from sdbatch.plan.shape import enlarged
from sdbatch.plan.sources import digests_by_role, given_of_urls, listed
from sdbatch.plan.texts import TextUses, text_uses
from sdbatch.recipe import request_keys
from sdbatch.types import Source

_TEXTS = named("text")
_LISTS = named("list")
_NOTHING = Given()
Columns = Mapping[str, Sequence[Any]]
"""Known manifest columns as Python values; absent ones stand for null."""


class ResolvedRows(NamedTuple):
    """Rows with nothing left open, by columns. See `sdbatch.types.Request` for the shared fields.

    By columns, because a million rows pass: an object for each costs Python's garbage collector as much as its digest.

    Attributes:
        num_outputs: Assets each row asks for.
        shape: See `sdbatch.types.Request`.
    """

    id: list[str]
    recipe: list[str]
    num_outputs: list[int]
    sources: list[tuple[Source, ...]]
    model: list[str]
    batch_key: list[str]
    cost_tflop: list[float]
    shape: list[str]

    @property
    def request_key(self) -> pa.StringArray:
        """Keys of the recipes, made when they are asked for: whoever only checks rows needs none."""
        return request_keys(self.recipe)


class Resolver:
    """Resolves rows of one job.

    Args:
        job: The checked job.
        models: Description of each of the job's models.
        source_problem: Returns why a source URL may not be opened, None when it may.
        source_url: Makes a source absolute.
        loras: Description of each of the job's LoRAs.
        loads_here: Whether this machine's Python packages are those that load the models.
        source_size: Returns width and height of a source, None where they are not known; asked for rows whose size
            follows from their source.
    """

    def __init__(
        self,
        job: Job,
        models: Mapping[str, ModelInfo],
        source_problem: Callable[[str], str | None],
        source_url: Callable[[str], str],
        loras: Mapping[str, LoraInfo] | None = None,
        *,
        loads_here: bool = True,
        source_size: Callable[[str], tuple[int, int] | None] = lambda _: None,
    ) -> None:
        self._seed = job.seed
        self._settler = Settler(job, models, loras or {}, loads_here=loads_here)
        self._source_problem = source_problem
        self._source_url = source_url
        self._source_size = source_size

    @property
    def sizes(self) -> Mapping[str, set[OutputSize]]:
        """Sizes of the outputs of all rows so far, by model."""
        return self._settler.sizes

    def resolve(
        self, columns: Columns, num_rows: int, digests: Mapping[str, str]
    ) -> tuple[ResolvedRows, list[RowProblem]]:
        """Resolve some rows.

        Args:
            columns: The rows'.
            num_rows: Their common length.
            digests: Content digest by source URL as `source_urls` gives them; one that is absent counts as `missing`.

        Returns:
            The rows that have no problem, and the problems; both in row order.
        """
        nulls: Sequence[Any] = [None] * num_rows
        # A row without an id is refused where ids are checked; here it is resolved like the others.
        own = {"id": _or_default(columns.get("id", nulls), ""), **{name: columns.get(name, nulls) for name in _TEXTS}}
        own |= {name: columns[name] for name in SOURCE_ROLES if name in columns}
        own["seed"] = row_seeds(self._seed, own["id"], columns.get("seed", nulls), columns.get("seed_group", nulls))
        resolved: list[tuple[Sequence[int], ResolvedRows]] = []
        problems: list[RowProblem] = []
        for group, offsets in self._groups(columns, num_rows):
            rows = _picked(own, offsets)
            sources, refused = self._sources(rows, digests)
            of_group = [*_text_problems(group, rows), *refused, *_group_problems(group, rows)]
            problems.extend(problem._replace(offset=offsets[problem.offset]) for problem in of_group)
            if isinstance(group, RejectedGroup):
                continue
            places = offsets
            if bad := {problem.offset for problem in of_group}:
                good = [place for place in range(len(offsets)) if place not in bad]
                places = [offsets[place] for place in good]
                rows, sources = _picked(rows, good), [sources[place] for place in good]
            resolved.append((places, self._sized(group, _resolved(group, rows, sources))))
        return _in_row_order(resolved), sorted(problems, key=lambda problem: problem.offset)

    def source_urls(self, columns: Mapping[str, Sequence[Any]]) -> set[str]:
        """Return every source of some rows that may be opened, absolute."""
        urls: set[str] = set()
        for role in SOURCE_ROLES:
            for value in columns.get(role, ()):
                urls.update(self._source_url(url) for url in listed(value) if self._source_problem(url) is None)
        return urls

    def _groups(self, columns: Columns, num_rows: int) -> Iterator[tuple[SettledGroup | RejectedGroup, Sequence[int]]]:
        """Yield each group of rows with the same settings, and the offsets of its rows."""
        names = [name for name in SETTINGS if name in columns and columns[name].count(None) < num_rows]
        values = [_hashable(columns[name]) if name in _LISTS else columns[name] for name in names]
        has_sources = not columns.keys().isdisjoint(SOURCE_ROLES)
        reader = self._settler.reader
        if not names and not has_sources and reader is None:
            yield self._settler.settle(dict.fromkeys(SETTINGS), _NOTHING), range(num_rows)
            return
        given: Iterable[Given] = repeat(_NOTHING, num_rows)
        if has_sources:
            nulls = [None] * num_rows
            given = map(given_of_urls, zip(*(columns.get(role, nulls) for role in SOURCE_ROLES), strict=True))
        none = tuple(None for _ in _TEXTS)
        uses: Iterable[TextUses] = text_uses(reader, columns, num_rows) if reader else repeat(none, num_rows)
        alike: dict[tuple[Any, ...], list[int]] = {}
        for offset, key in enumerate(zip(given, uses, *values, strict=True)):
            alike.setdefault(key, []).append(offset)
        for (of_rows, of_texts, *own), offsets in alike.items():
            settings = dict.fromkeys(SETTINGS) | dict(zip(names, own, strict=True))
            yield self._settler.settle(settings, of_rows, of_texts), offsets

    def _sized(self, group: SettledGroup, rows: ResolvedRows) -> ResolvedRows:
        """Return rows with the work and the shape of the size that each one's source settles, where it is known."""
        times = group.route.enlarges
        for place, sources in enumerate(rows.sources) if times > 1 else ():
            size = next((self._source_size(source.url) for source in sources if source.role == "images"), None)
            if size is not None:
                rows.shape[place], rows.cost_tflop[place] = enlarged(group.shape, group.cost_tflop, size, times)
        return rows

    def _sources(self, rows: Columns, digests: Mapping[str, str]) -> tuple[list[tuple[Source, ...]], list[RowProblem]]:
        """Return the sources of each row, and the problems of those that may not be opened."""
        roles = [role for role in SOURCE_ROLES if role in rows]
        sources: list[tuple[Source, ...]] = [()] * len(rows["id"])
        problems: list[RowProblem] = []
        for place in range(len(sources)) if roles else ():
            of_row = [self._source(role, url, digests) for role in roles for url in listed(rows[role][place])]
            sources[place] = tuple(source for source, _ in of_row)
            refused = ((source, message) for source, message in of_row if message)
            problems.extend(RowProblem(source.role, source.url, message, place) for source, message in refused)
        return sources, problems

    def _source(self, role: str, url: str, digests: Mapping[str, str]) -> tuple[Source, str | None]:
        """Return a source, absolute, and why it may not be opened, if so; then it stays as it was written."""
        if message := self._source_problem(url):
            return Source(role=role, url=url, digest="missing"), message
        absolute = self._source_url(url)
        return Source(role=role, url=absolute, digest=digests.get(absolute, "missing")), None


def _resolved(group: SettledGroup, rows: Columns, sources: list[tuple[Source, ...]]) -> ResolvedRows:
    """Return rows that share their settings and have no problem."""
    num_rows = len(sources)
    texts = {name: _or_default(rows[name], group.texts[name]) for name in _TEXTS}
    own: dict[str, Sequence[Any]] = {**texts, "seed": rows["seed"]}
    if roles := [name for name in group.recipe.own if name in SOURCE_ROLES]:
        digests = [digests_by_role(of_row) for of_row in sources]
        own |= {role: [of_row[role] for of_row in digests] for role in roles}
    recipes = group.recipe.fill(own)
    if not "".join(filter(None, group.texts.values())).isascii():
        "".join(recipes).encode()  # a text of the job may be no Unicode; here it raises, and the row has a problem
    return ResolvedRows(
        id=list(rows["id"]),
        recipe=recipes,
        num_outputs=[group.num_outputs] * num_rows,
        sources=sources,
        model=[group.model] * num_rows,
        batch_key=row_batch_keys(group.batch_key, group.route, texts["negative_prompt"], sources),
        cost_tflop=[group.cost_tflop] * num_rows,
        shape=[group.shape] * num_rows,
    )


def _or_default(texts: Sequence[Any], default: Any) -> list[Any]:
    if not (num_nulls := texts.count(None)):
        return list(texts)
    if num_nulls == len(texts):
        return [default] * num_nulls
    return [default if text is None else text for text in texts]


def _picked(columns: Columns, offsets: Sequence[int]) -> Columns:
    """Return some rows of some columns."""
    if len(offsets) == len(columns["id"]):
        return columns
    return {name: [values[offset] for offset in offsets] for name, values in columns.items()}


def _in_row_order(resolved: Sequence[tuple[Sequence[int], ResolvedRows]]) -> ResolvedRows:
    """Return rows that were resolved group by group, with the offset of each, in the order they came in."""
    if len(resolved) == 1:
        return resolved[0][1]
    offsets = [offset for group, _ in resolved for offset in group]
    order = sorted(range(len(offsets)), key=offsets.__getitem__)
    columns = [[value for _, rows in resolved for value in rows[number]] for number in range(len(ResolvedRows._fields))]
    return ResolvedRows._make([column[place] for place in order] for column in columns)


def _text_problems(group: SettledGroup | RejectedGroup, rows: Columns) -> Iterator[RowProblem]:
    """Yield the problems of each row's own texts and seed."""
    for name, reason in group.unread.items():
        yield from (RowProblem(name, text, reason, place) for place, text in enumerate(rows[name]) if text)
    message = "is missing and has no default; an empty text is a legal prompt"
    for name, default in group.texts.items():
        if default is None and name not in group.unread and None in rows[name]:
            yield from (RowProblem(name, None, message, place) for place, text in enumerate(rows[name]) if text is None)
    seeds = rows["seed"]
    if seeds and seed_problem(min(seeds)) is None and seed_problem(max(seeds)) is None:
        return
    for place, seed in enumerate(seeds):
        if not_taken := seed_problem(seed):
            yield RowProblem("seed", seed, not_taken, place)


def _group_problems(group: SettledGroup | RejectedGroup, rows: Columns) -> Iterator[RowProblem]:
    """Yield the problems of a rejected group for each of its rows, whose own sources they name."""
    if isinstance(group, RejectedGroup):
        for place in range(len(rows["id"])):
            for problem in group.problems:
                value = rows[problem.column][place] if problem.column in rows.keys() & SOURCE_ROLES else problem.value
                yield problem._replace(value=value, offset=place)


def _hashable(column: Sequence[Any]) -> list[Any]:
    """Return lists as tuples, a LoRA as (name, weight); empty ones as null."""
    return [
        tuple((item["name"], item["weight"]) if isinstance(item, dict) else item for item in value) if value else None
        for value in column
    ]
