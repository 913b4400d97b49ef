"""A manifest is read to its end; every row is checked, resolved, and kept on this machine's disk.

    Job --> scan() --> ResolvedManifest (parts on disk) --> parts(), publish()

Nothing is written into a campaign before every row was checked.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sdbatch.after import check_stages, choose_stages, stages_digest
from sdbatch.campaign import layout
from sdbatch.campaign.digests import first_key_words
from sdbatch.campaign.schema import to_parquet
from sdbatch.campaign.standing import OutputName
from sdbatch.checkpoints import ModelInfo, describe, describe_lora, refuse_shared_revisions
from sdbatch.driver.picking import Selection
from sdbatch.driver.rows.asset_sources import AssetSources
from sdbatch.driver.rows.chains import settle_chains
from sdbatch.driver.rows.manifest_picks import ManifestPicks
from sdbatch.driver.rows.parts import (
    DIGEST,
    PART,
    part_digests,
    part_schema,
    part_table,
    read_part,
    read_parts,
    write_part,
)
from sdbatch.driver.rows.row_warnings import RowWarnings, is_absent_file
from sdbatch.driver.rows.shared_keys import SharedKeys, leading_words
from sdbatch.driver.rows.source_headers import SourceHeaders
from sdbatch.driver.rows.source_sizes import SourceSizes
from sdbatch.driver.rows.tables import ManifestHere, opened_manifest
from sdbatch.errors import ManifestError, ModelError, Problem
from sdbatch.families.peaks import OutputSize
from sdbatch.fetch.sources import digest_sources
from sdbatch.job import Job
from sdbatch.manifest.check import Duplicates, Problems, check_text
from sdbatch.manifest.read import RowBatch, Shard, list_shards, read_batches
from sdbatch.manifest.row_place import problem_at
from sdbatch.plan.each_row import resolve_each
from sdbatch.plan.problems import RowProblem
from sdbatch.plan.resolve import ResolvedRows, Resolver
from sdbatch.plan.sources import ASSET_SCHEME, asset_problem
from sdbatch.points import reached
from sdbatch.scratch import Scratch
from sdbatch.storage import AllowList, Store, parse_url

PART_ROWS = 16_384
_PUBLIC = ("id", "request_key", "num_outputs")
COUNTED = (*_PUBLIC, *DIGEST, "model", "cost_tflop", "shape", "waits_for")
"""Columns that counting needs; the recipes, which are most of the bytes, stay unread."""
IS_PICKED = "is_picked"
"""Column of a part where a selection leaves rows out: whether it means the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """A manifest that was read to its end without a problem.

    Attributes:
        num_rows: Manifest rows.
        num_shards: Parquet files.
        num_outputs: Assets that the manifest asks for.
        models: Description of each model, by its name in the job.
        sources_missing: Sources that are not there, sorted; empty when sources are not digested.
        stages_digest: Settings of the stages that may block; None without any, or when sources are not digested.
        unpinned: Entries of the job whose weights are known by size and ETag only, such as `models.sdxl`.
        warnings: The first warnings about rows that can be made; see `sdbatch.driver.rows.row_warnings`.
        num_warnings: Number of all of them.
        ids_digest: Digest of all ids in their order.
        sizes: Sizes of the outputs, by model.
        tables: sha256 of each file that the manifest was built from, by its path.
        notes: How these were read where that is not written in them.
        outputs_named: Outputs of the campaign itself that are sources: their numbers by id.
    """

    num_rows: int
    num_shards: int
    num_outputs: int
    models: Mapping[str, ModelInfo]
    sources_missing: tuple[str, ...]
    stages_digest: str | None
    unpinned: tuple[str, ...] = ()
    warnings: tuple[Problem, ...] = ()
    num_warnings: int = 0
    ids_digest: str = ""
    sizes: Mapping[str, set[OutputSize]] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    outputs_named: Mapping[str, set[int]] = field(default_factory=dict)


def scan(
    job: Job,
    keep: Callable[[RowBatch, ResolvedRows, NDArray[np.uint64]], None] | None = None,
    *,
    loads_here: bool = True,
    headers: SourceHeaders | None = None,
    counts_tokens: bool = True,
    built: ManifestHere | None = None,
    picks: ManifestPicks | None = None,
) -> Scanned:
    """Check every row of a job's manifest, and resolve it.

    Args:
        job: The job.
        keep: Called with each batch and the digests of its ids until there is a problem; with it, sources and models
            are digested too.
        loads_here: Whether this machine's Python packages are those that load the models.
        headers: Reads the headers of sources; None leaves them unread.
        counts_tokens: Whether the tokens of long prompts are counted, for warnings.
        built: Rows that take the place of the job's manifest.
        picks: Looks at each batch that is kept.

    Raises:
        ManifestError: With every problem of the manifest.
        JobError, ModelError, StoreRefused: When something around the rows is wrong.
    """
    with nullcontext(built) if built else opened_manifest(job) as manifest:
        return _scanned(
            job, manifest, keep, loads_here=loads_here, headers=headers, counts_tokens=counts_tokens, picks=picks
        )


def _scanned(
    job: Job,
    manifest: ManifestHere,
    keep: Callable[[RowBatch, ResolvedRows, NDArray[np.uint64]], None] | None,
    *,
    loads_here: bool,
    headers: SourceHeaders | None,
    counts_tokens: bool,
    picks: ManifestPicks | None,
) -> Scanned:
    models = {
        name: describe(name, model, job.storage, with_revision=keep is not None) for name, model in job.models.items()
    }
    loras = {
        name: describe_lora(name, lora, job.storage, with_revision=keep is not None) for name, lora in job.loras.items()
    }
    refuse_shared_revisions(models.values(), job.storage)
    allow = AllowList(job.sources.allow)
    if faults := [f"loras.{name}: {one.left_out}" for name, one in loras.items() if one.left_out]:
        raise ModelError("\n".join(faults))
    sizes = SourceSizes(job)
    resolver = Resolver(
        job,
        models,
        lambda url: _source_problem(url, allow),
        _source_url,
        loras,
        loads_here=loads_here,
        source_size=sizes.of if keep is not None else lambda _: None,
    )
    stages = choose_stages(job.stages)
    check_stages(stages)
    unread: list[str] = []
    shards = list_shards(manifest.url, job.storage, unread)
    problems = Problems()
    _check_own_columns(shards, problems)
    if picks is not None:
        picks.begin(shards)
    duplicates = Duplicates()
    digests: dict[str, str] = {}
    assets = AssetSources()
    is_missing = (lambda url: digests.get(url) == "missing") if keep is not None else is_absent_file
    warnings = RowWarnings(models, is_missing, counts_tokens=counts_tokens)
    num_outputs = 0
    ids = hashlib.sha256()
    for shard in shards:
        problems.extend(shard.problems)
        for batch in read_batches(shard):
            id_hashes = duplicates.add(batch)
            if headers is not None:
                headers.add(batch)
            assets.add(batch.columns)
            if keep is not None:
                fresh = resolver.source_urls(batch.columns) - digests.keys()
                of_campaign = {url for url in fresh if url.startswith(ASSET_SCHEME)}
                if of_files := fresh - of_campaign:
                    digests.update(digest_sources(of_files, job.storage, allow))
                digests.update({url: url for url in of_campaign})  # until `settle_chains` knows their content
            rows, row_problems = resolve_each(resolver, batch.columns, batch.num_rows, digests)
            problems.extend(_of_batch(batch, row_problems))
            num_outputs += sum(rows.num_outputs)
            warnings.look(batch, rows)
            ids.update("\n".join([*rows.id, ""]).encode())
            if keep is not None and not problems.count:
                keep(batch, rows, id_hashes.view(np.uint64))
                if picks is not None:
                    picks.add(batch)
    problems.extend(duplicates.problems(shards))
    problems.extend(assets.problems(job, shards, lambda rows, num: resolve_each(resolver, rows, num, digests)[0]))
    if headers is not None:
        problems.extend(headers.problems(shards))
    if problems.count:
        raise ManifestError(_in_order(problems.kept), problems.count)
    num_rows = sum(shard.num_rows for shard in shards)
    of_table = [
        Problem(shard=job.manifest_path, row=None, column=None, value=None, message=message)
        for message in (*manifest.warnings, *(() if num_rows else ("has no rows: there is nothing to make",)))
    ]
    return Scanned(
        num_rows=num_rows,
        num_shards=len(shards),
        num_outputs=num_outputs,
        models=models,
        sources_missing=tuple(sorted(url for url, digest in digests.items() if digest == "missing")),
        stages_digest=stages_digest(stages) if keep is not None else None,
        unpinned=(
            *(f"models.{name}" for name, model in models.items() if not model.is_pinned),
            *(f"loras.{name}" for name, lora in loras.items() if not lora.is_pinned),
        ),
        warnings=(*of_table, *warnings.problems.kept),
        num_warnings=len(of_table) + warnings.problems.count,
        ids_digest=ids.hexdigest(),
        sizes=resolver.sizes,
        tables=manifest.tables,
        notes=(*manifest.notes, *_unread_note(manifest.url, unread)),
        outputs_named=assets.named,
    )


def _source_problem(url: str, allow: AllowList) -> str | None:
    """Return why a source may not be opened: outputs of the campaign need no leave."""
    return asset_problem(url) if url.startswith(ASSET_SCHEME) else allow.problem(url)


def _source_url(url: str) -> str:
    return url if url.startswith(ASSET_SCHEME) else parse_url(url).url


def _unread_note(manifest: str, names: Sequence[str]) -> list[str]:
    said = f"{manifest}: not read are {', '.join(names):.200}; of a folder its files *.parquet are the manifest"
    return [said] if names else []


def _of_batch(batch: RowBatch, row_problems: Iterable[RowProblem]) -> Iterator[Problem]:
    """Yield the problems of a batch. A value that was refused as it was read stands as null: that is not told again."""
    refused = {(problem.row, problem.column) for problem in batch.problems}
    planned = (problem_at(batch, row.offset, row.column, row.value, row.message) for row in row_problems)
    yield from batch.problems
    for problem in (*check_text(batch), *planned):
        if (problem.row, problem.column) not in refused:
            yield problem


def _check_own_columns(shards: Iterable[Shard], problems: Problems) -> None:
    """Add a problem for each x_* column whose type differs between shards."""
    first: dict[str, tuple[pa.DataType, str]] = {}
    for shard in shards:
        for name, kind in shard.own.items():
            known, where = first.setdefault(name, (kind, shard.name))
            if kind != known and not pa.types.is_null(kind):
                message = f"is {kind} here and {known} in {where}"
                problems.add(Problem(shard=shard.name, row=None, column=name, value=None, message=message))


def _in_order(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.shard, -1 if problem.row is None else problem.row))


class ResolvedManifest:
    """Every row of a manifest, resolved, in parts on this machine's disk: the manifest as one run saw it.

    Args:
        job: The job.
        selection: Which of its rows are meant; the others stand in the parts as well.
        loads_here: See `scan`.
        counts_tokens: See `scan`.
        void: Outputs that the run takes back before it begins; none of them is a source.
        built: Rows that take the place of the job's manifest.
        on_kept: Told how many rows were read and found good, now and then.
    """

    def __init__(
        self,
        job: Job,
        selection: Selection | None = None,
        *,
        loads_here: bool = True,
        counts_tokens: bool = False,
        void: Collection[OutputName] = (),
        built: ManifestHere | None = None,
        on_kept: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._on_kept = on_kept
        self._scratch = Scratch()
        self._folder = self._scratch.folder
        self._waiting: list[pa.Table] = []
        self._num_parts = 0
        self._written: Future[None] | None = None
        self._key_words = array("Q")  # it grows: arrays that are put together at the end are there twice
        try:
            picks = None if selection is None or selection.is_of_all else ManifestPicks(job, selection)
            # The thread ends with the scan: Arrow gives back only then what it has freed there.
            with ThreadPoolExecutor(1, "write-part") as self._writer:
                self.scanned = scan(
                    job, self._keep, loads_here=loads_here, counts_tokens=counts_tokens, picks=picks, built=built
                )
                self._flush()
                self._end_writing()
            self._is_picked = None if picks is None else picks.picked()
            if self.scanned.outputs_named:
                self._settle_chains(job, void)
            self._shared_keys = SharedKeys(np.frombuffer(self._key_words, np.uint64))
            del self._key_words
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the parts."""
        self._scratch.close()

    def parts(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield every row, part by part, x_* left out; only some columns when they are named.

        Where a selection leaves rows out, the column `IS_PICKED` says which.
        """
        start = 0
        for part in read_parts(self._parts(), columns or PART.names, ahead=columns is not None):
            if self._is_picked is None:
                yield part
                continue
            is_picked = self._is_picked[start : start + part.num_rows]
            yield part.append_column(IS_PICKED, pa.array(is_picked))
            start += part.num_rows

    def own_columns(self) -> list[str]:
        """Return the names of the rows' own columns, x_*."""
        names = [name for path in self._parts() for name in part_schema(path).names if name.startswith("x_")]
        return list(dict.fromkeys(names))

    def shared_keys(self) -> SharedKeys:
        """Return the request keys that more than one row has."""
        return self._shared_keys

    def publish(self, store: Store, run: str, path_of: Callable[[str, int], str] = layout.requests) -> None:
        """Write ids, keys and x_* into the campaign: what effective metadata is joined with.

        The first part is written last, and a manifest without it counts for nobody: after a kill, the rows of the parts
        that are not there would be taken for rows that left.

        Args:
            store: The campaign.
            run: The run.
            path_of: Says where each part goes, by run and number.
        """
        own = pa.unify_schemas([part_schema(path) for path in self._parts()]) if self._num_parts else PART
        names = [*_PUBLIC, *(name for name in own.names if name.startswith("x_"))]
        for number, path in reversed(list(enumerate(self._parts()))):
            part = read_part(path, names)
            for name in names:
                if name not in part.column_names:
                    part = part.append_column(name, pa.nulls(part.num_rows, own.field(name).type))
            reached("before-writing-the-plan")
            store.put_new(path_of(run, number), to_parquet(part.select(names), distinct=("id", "request_key")))

    def _keep(self, batch: RowBatch, rows: ResolvedRows, ids: NDArray[np.uint64]) -> None:
        table = part_table(rows, batch.own, ids)
        self._waiting.append(table)
        self._key_words.frombytes(first_key_words(part_digests(table), ids).tobytes())
        if sum(table.num_rows for table in self._waiting) >= PART_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting and self._num_parts:
            return  # but an empty manifest still leaves one part, and with it its mark on the campaign
        part = pa.concat_tables([PART.empty_table(), *self._waiting], promote_options="default")
        self._end_writing()  # one part at a time: rows that wait for the disk would fill the memory
        self._written = self._writer.submit(write_part, part, self._folder / f"part-{self._num_parts:05d}.arrow")
        self._num_parts += 1
        self._waiting = []
        self._on_kept(len(self._key_words))

    def _end_writing(self) -> None:
        """Wait until the part that a thread writes, beside the resolving of the next one, is on the disk."""
        if self._written is not None:
            self._written.result()

    def _settle_chains(self, job: Job, void: Collection[OutputName]) -> None:
        for path, part in settle_chains(self._parts(), job, self.scanned.outputs_named, void):
            write_part(part, path)
        self._key_words = array("Q")
        for part in self.parts(["request_key"]):
            self._key_words.frombytes(leading_words(part.column("request_key")).tobytes())

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("part-*"))
