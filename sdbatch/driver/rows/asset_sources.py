"""Sources that are outputs of the campaign itself, `asset:<id>/<n>`: whether there is such a row, with so many outputs.

    RowBatch --> AssetSources.add() --> the outputs that are named --> problems(), each with its row

Whether an output is made already is no matter of this check: a row whose source is not there yet waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from sdbatch.campaign.standing import newest_requests
from sdbatch.columns import SOURCE_ROLES
from sdbatch.errors import Problem
from sdbatch.hints import nearest
from sdbatch.job import Job
from sdbatch.manifest.read import Shard, read_batches
from sdbatch.manifest.row_place import problem_at
from sdbatch.plan.resolve import Columns, ResolvedRows
from sdbatch.plan.sources import AssetName, asset_name, listed
from sdbatch.storage import open_campaign

IDS_COMPARED_MAX: Final = 50_000
"""Ids of the manifest among which the nearest to one that is not there is looked for."""

OfRows = Callable[[Columns, int], ResolvedRows]
"""Resolves some rows; those with a problem are left out."""


class AssetSources:
    """Collects the outputs that a manifest names as sources.

    Attributes:
        named: Numbers of the outputs that are named, by the id of their row.
    """

    def __init__(self) -> None:
        self.named: dict[str, set[int]] = {}

    def add(self, columns: Columns) -> None:
        """Remember what some rows name."""
        for role in SOURCE_ROLES:
            for value in columns.get(role, ()):
                for name in _names(value) if value else ():
                    self.named.setdefault(name.id, set()).add(name.n)

    def problems(self, job: Job, shards: Sequence[Shard], of_rows: OfRows) -> Iterator[Problem]:
        """Yield a problem for each row that names an output which can never be there.

        The rows are read again, and the campaign's manifests where an id is in none of them.

        Args:
            job: The job.
            shards: The manifest.
            of_rows: Says how many outputs rows have.

        Raises:
            SdbatchError: When the campaign is asked and cannot be read.
        """
        if not self.named:
            return
        present = _Present(self.named)
        for shard in shards:
            for batch in read_batches(shard):
                present.look(batch.columns, of_rows)
        unknown = self.named.keys() - present.num_outputs.keys()
        campaign = newest_requests(open_campaign(job.output, job.storage), unknown) if unknown else {}
        counts = {**present.num_outputs, **{request_id: count for request_id, (_, count) in campaign.items()}}
        names = (AssetName(request_id, n) for request_id, numbers in self.named.items() for n in numbers)
        faults = {name: fault for name in names if (fault := _fault(name, counts, present.ids, job.limits.rerolls))}
        circle = present.circle()
        if faults or circle or present.names_itself:
            yield from _told(shards, faults, circle)


def _told(shards: Sequence[Shard], faults: Mapping[AssetName, str], circle: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for each row that names an output which can never be there; the rows are read once more."""
    waits = f"closes a circle of rows that wait for each other ({' <- '.join(circle)})"
    for shard in shards:
        for batch in read_batches(shard):
            ids = batch.columns.get("id", [])
            for role in SOURCE_ROLES:
                for offset, value in enumerate(batch.columns.get(role, ())):
                    for name in _names(value) if value else ():
                        message = faults.get(name)
                        if name.id == ids[offset]:
                            message = "is an output of this very row; a source is made by a run before"
                        elif name.id in circle and ids[offset] in circle:
                            message = waits
                        if message:
                            yield problem_at(batch, offset, role, str(name), message)


class _Present:
    """The rows of a manifest that are named: how many outputs each has, and what it names itself."""

    def __init__(self, named: Mapping[str, set[int]]) -> None:
        self._named = named
        self._graph: dict[str, set[str]] = {}
        self.num_outputs: dict[str, int | None] = {}
        self.ids: list[str] = []

    def look(self, columns: Columns, of_rows: OfRows) -> None:
        ids = columns.get("id", [])
        self.ids += [request_id for request_id in ids[: IDS_COMPARED_MAX - len(self.ids)] if request_id]
        offsets = [offset for offset, request_id in enumerate(ids) if request_id in self._named]
        if not offsets:
            return
        picked = {name: [values[offset] for offset in offsets] for name, values in columns.items()}
        self.num_outputs |= dict.fromkeys(picked["id"])  # also of a row that has a problem of its own
        rows = of_rows(picked, len(offsets))
        self.num_outputs |= dict(zip(rows.id, rows.num_outputs, strict=True))
        for role in picked.keys() & set(SOURCE_ROLES):
            for request_id, value in zip(picked["id"], picked[role], strict=True):
                self._graph.setdefault(request_id, set()).update(name.id for name in _names(value))

    @property
    def names_itself(self) -> bool:
        """Whether any row names an output of its own."""
        return any(request_id in others for request_id, others in self._graph.items())

    def circle(self) -> list[str]:
        """Return ids of rows that wait for each other, the first one at both ends; none where there are none."""
        graph = {request_id: others - {request_id} for request_id, others in self._graph.items()}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            ids: list[str] = error.args[1]
            return ids
        return []


def _fault(name: AssetName, counts: Mapping[str, int | None], ids: Sequence[str], rerolls: int) -> str | None:
    if name.id not in counts:
        near = nearest(name.id, ids)
        hint = f"; did you mean asset:{near}/{name.n}?" if near else ""
        return f"names a row that neither this manifest nor the campaign has{hint}"
    count = counts[name.id]
    if count is not None and name.n >= count * (1 + rerolls):  # `--reroll` may have made it
        numbers = "0" if count == 1 else f"0 to {count - 1}"
        return f"names an output that its row does not have; the outputs of {name.id} are {numbers}"
    return None


def _names(value: Any) -> Iterable[AssetName]:
    return [name for url in listed(value) if (name := asset_name(url))]
