"""Rows whose sources are outputs of their own campaign get their keys: from the content that is committed.

    parts of the resolved manifest + History --> settle_chains() --> parts with keys, or with what a row waits for

A row never depends on what its own run makes: an output that is not committed when a run is planned leaves its row
waiting, and a later run makes it. When the output is rendered anew its digest moves, and with it the key of the row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.history import History
from sdbatch.campaign.standing import OutputName, StandingOutput, newest_requests, standing_outputs
from sdbatch.driver.rows.parts import read_part, with_digests
from sdbatch.errors import ManifestError, Problem
from sdbatch.families import ENLARGES
from sdbatch.job import Job
from sdbatch.plan.shape import enlarged
from sdbatch.plan.sources import ASSET_SCHEME, AssetName, asset_name, digests_by_role
from sdbatch.recipe import parse_recipe, request_key, with_sources
from sdbatch.review.files import read_verdicts
from sdbatch.storage import Store, open_campaign
from sdbatch.types import Source
from sdbatch.verdicts import judged_files

_SETTLED = ("request_key", "recipe", "sources", "waits_for", "shape", "cost_tflop")


class _Row(NamedTuple):
    """A row that is named by another one and names outputs itself."""

    recipe: str
    sources: tuple[Source, ...]


def settle_chains(
    paths: Sequence[Path], job: Job, named: Mapping[str, Collection[int]], void: Collection[OutputName] = ()
) -> list[tuple[Path, pa.Table]]:
    """Return the parts that hold rows with such sources, settled.

    Args:
        paths: The resolved manifest; see `driver.rows.scan`. Sources that are outputs have their own name as digest.
        job: Names the campaign.
        named: Numbers of the outputs that are named, by id.
        void: Outputs that the run takes back before it begins.

    Raises:
        ManifestError: When an output is of the wrong kind: a clip where a picture is read, or the other way round.
    """
    store = open_campaign(job.output, job.storage)
    outputs = _Outputs(store, Campaign(store).history(), named, void)
    outputs.settle(paths)
    settled: list[tuple[Path, pa.Table]] = []
    problems: list[Problem] = []
    for path in paths:
        part = read_part(path)
        columns = {name: part.column(name).to_pylist() for name in ("id", *_SETTLED)}
        places = [place for place, sources in enumerate(columns["sources"]) if _is_chained(sources)]
        for place in places:
            row = _Row(columns["recipe"][place], _sources(columns["sources"][place]))
            problems += outputs.problems(job.manifest_path, columns["id"][place], row)
            columns["waits_for"][place] = outputs.lacking(row)
            if columns["waits_for"][place] is None:
                recipe, sources = outputs.filled(row)
                columns["recipe"][place], columns["request_key"][place] = recipe, request_key(recipe)
                columns["sources"][place] = [_as_dict(source) for source in sources]
                if sized := outputs.enlarged(row, columns["shape"][place], columns["cost_tflop"][place]):
                    columns["shape"][place], columns["cost_tflop"][place] = sized
        for name in _SETTLED if places else ():
            number = part.column_names.index(name)
            values = pa.array(columns[name], part.schema.field(name).type)
            part = part.set_column(number, part.schema.field(name), values)
        if places:
            settled.append((path, with_digests(part)))
    if problems:
        raise ManifestError(problems)
    return settled


class _Outputs:
    """The outputs that a manifest names, as far as they stand and nobody rejected them.

    Args:
        store: The campaign.
        history: What is done.
        named: Numbers of the outputs that are named, by id.
        void: Outputs that are taken back.
    """

    def __init__(
        self, store: Store, history: History, named: Mapping[str, Collection[int]], void: Collection[OutputName]
    ) -> None:
        self._store = store
        self._history = history
        self._named = named
        self._void = void
        self._rejected = judged_files(read_verdicts(store), "rejected")
        self._files: dict[AssetName, StandingOutput] = {}
        self._known: set[str] = set()

    def settle(self, paths: Sequence[Path]) -> None:
        """Find the files of all that stands: of rows without such sources first, then of those that they are for."""
        keys, chained = self._of_manifest(paths)
        elsewhere = newest_requests(self._store, self._named.keys() - keys.keys() - chained.keys())
        keys |= {request_id: key for request_id, (key, _) in elsewhere.items()}
        while keys:
            self._look(keys)
            ready = {name: row for name, row in chained.items() if self._is_known(row)}
            chained = {name: row for name, row in chained.items() if name not in ready}
            keys = {name: request_key(self.filled(row)[0]) for name, row in ready.items() if not self.lacking(row)}
            self._known |= ready.keys() - keys.keys()  # they wait themselves, and so does what names them

    def lacking(self, row: _Row) -> str | None:
        """Return the first source of a row that is not there yet; None when it can be made."""
        names = [source.url for source in row.sources if (name := asset_name(source.url)) and name not in self._files]
        return names[0] if names else None

    def filled(self, row: _Row) -> tuple[str, tuple[Source, ...]]:
        """Return recipe and sources of a row that lacks nothing."""
        sources = tuple(self._filled(source) for source in row.sources)
        return with_sources(row.recipe, digests_by_role(sources)), sources

    def enlarged(self, row: _Row, shape: str, cost_tflop: float) -> tuple[str, float] | None:
        """Return shape and work of a row that enlarges one of them; None where its size follows from no such source."""
        times = ENLARGES.get(parse_recipe(row.recipe).route, 1)
        names = [asset_name(source.url) for source in row.sources if source.role == "images"]
        size = self._files[names[0]].size if times > 1 and names and names[0] else None
        return enlarged(shape, cost_tflop, size, times) if size else None

    def problems(self, manifest: str, request_id: str, row: _Row) -> list[Problem]:
        """Return a problem for each source that is a clip where a picture is read, or the other way round."""
        found: list[Problem] = []
        for source in row.sources:
            file = self._files.get(name) if (name := asset_name(source.url)) else None
            if file is not None and file.media_type.startswith("video/") != (source.role == "video"):
                wanted = "a clip" if source.role == "video" else "a picture"
                message = f"is {file.media_type}, where {wanted} is read"
                found.append(
                    Problem(
                        shard=manifest, row=None, column=source.role, value=source.url, message=message, id=request_id
                    )
                )
        return found

    def _of_manifest(self, paths: Sequence[Path]) -> tuple[dict[str, str], dict[str, _Row]]:
        """Return keys of the named rows that have no such sources, and the other named rows."""
        keys: dict[str, str] = {}
        chained: dict[str, _Row] = {}
        wanted = pa.array(sorted(self._named), pa.string())
        for path in paths:
            part = read_part(path, ["id", "request_key", "recipe", "sources"])
            for row in part.filter(pc.is_in(part.column("id"), wanted)).to_pylist():
                if _is_chained(row["sources"]):
                    chained[row["id"]] = _Row(row["recipe"], _sources(row["sources"]))
                else:
                    keys[row["id"]] = row["request_key"]
        return keys, chained

    def _look(self, keys: Mapping[str, str]) -> None:
        """Find the files of the named outputs of rows whose keys are known."""
        outputs = {
            OutputName(request_id, key, n): AssetName(request_id, n)
            for request_id, key in keys.items()
            for n in self._named[request_id]
        }
        found = standing_outputs(self._store, self._history, outputs, self._void)
        self._files |= {
            outputs[output]: file for output, file in found.items() if (*output, file.sha256) not in self._rejected
        }
        self._known |= keys.keys()

    def _is_known(self, row: _Row) -> bool:
        """Whether it is known of each row that this one names whether its outputs stand."""
        names = [name for source in row.sources if (name := asset_name(source.url))]
        return all(name.id in self._known for name in names)

    def _filled(self, source: Source) -> Source:
        name = asset_name(source.url)
        if name is None:
            return source
        file = self._files[name]
        return Source(role=source.role, url=source.url, digest=f"sha256:{file.sha256}", asset=file.asset)


def _is_chained(sources: Sequence[Mapping[str, Any]] | None) -> bool:
    return any(source["url"].startswith(ASSET_SCHEME) for source in sources or ())


def _sources(values: Sequence[Mapping[str, Any]]) -> tuple[Source, ...]:
    return tuple(Source(**value) for value in values)


def _as_dict(source: Source) -> dict[str, str]:
    return {"role": source.role, "url": source.url, "digest": source.digest, "asset": source.asset}
