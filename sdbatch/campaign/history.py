"""The outcomes of a campaign, read back from its files as columns of numbers.

    newest snapshot + indexes after it + commits these do not cover, void ones left out --> read_history() --> History

Truth is in rows, never in units, so batch policy may change between runs. A commit of a run that the snapshot tells of,
and that is not in it, came late: it counts nowhere, whoever reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sdbatch.campaign import formats, layout
from sdbatch.campaign.digests import (
    Digests,
    digest_order,
    group_starts,
    id_digests,
    numbers_of,
    output_digests,
    request_digests,
)
from sdbatch.campaign.files import INDEX_THREADS, HistoryFiles, RunFiles, each_of, history_files
from sdbatch.campaign.read import read_commit
from sdbatch.campaign.schema import INDEX
from sdbatch.campaign.void import VoidOutputs, read_void
from sdbatch.errors import UserError
from sdbatch.storage import Store

_FEW: Final = ("status", "error_type", "stages_digest", "commit")
"""Columns of an index, or a snapshot, with few different texts."""
_T = TypeVar("_T")


class UnreadableSnapshot(Exception):
    """A snapshot is torn; an older one, or the whole history, takes its place.

    Attributes:
        run: Whose it is.
    """

    def __init__(self, run: str) -> None:
        super().__init__(run)
        self.run = run


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The last word on a request that was tried and is not whole.

    Attributes:
        error_type: Class name.
        retryable: Whether a run tries it again by itself.
        stages_digest: Settings of the stages by which it was blocked; None where none of them blocked it.
        is_blocked: Whether a stage blocked it.
    """

    error_type: str
    retryable: bool
    stages_digest: str | None = None
    is_blocked: bool = False

    def is_retried(self, stages_digest: str | None) -> bool:
        """Return whether a run whose stages have this digest tries it again by itself."""
        return self.retryable or self.stages_digest not in {None, stages_digest}


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Every outcome that counts, sorted by request and then by (run, unit).

    Attributes:
        files: What it was read from.
        num_in_snapshot: How many of the outcomes its snapshot told of.
        num_objects: Files that were read besides the snapshot.
        requests: Digest of (id, request key), one for each outcome.
        ids: Digest of the id.
        numbers: Output number; -1 for a request that ended as a whole.
        is_ok: Whether the output is made.
        failures: What `failure` points into.
        failure: How it failed; -1 where it did not.
        commits: Paths in (run, unit) order, what `commit` points into.
        commit: Where its row stands.
        replaced: Digests of the outputs that another one of their request was made to replace, sorted, each once.
    """

    files: HistoryFiles
    num_in_snapshot: int
    num_objects: int
    requests: Digests
    ids: NDArray[np.uint64]
    numbers: NDArray[np.int32]
    is_ok: NDArray[np.bool_]
    failures: tuple[Failure, ...]
    failure: NDArray[np.int32]
    commits: tuple[str, ...]
    commit: NDArray[np.int32]
    replaced: Digests

    def __len__(self) -> int:
        return len(self.ids)

    def knows(self, ids: pa.Array) -> NDArray[np.bool_]:
        """Say of ids whether anything was ever committed for them."""
        return np.isin(id_digests(ids), self.ids)


# --- files ----------------------------------------------------------------------------------------------------------


def read_history(store: Store, *, follower: str | None = None, unreadable: list[str] | None = None) -> History:
    """Return what is done.

    Args:
        store: The campaign.
        follower: A run that holds the lease and begins with this reading; see `history_files`.
        unreadable: Gets the commits that cannot be read; without it one such is an error.
    """
    # Arrow would keep the memory of tables that were read before, and the process would stay that much larger.
    pool = pa.default_memory_pool()
    pool.release_unused()
    skipped: set[str] = set()
    while True:
        files = history_files(store, skipped, follower)
        try:
            void = void_since(store, files)
            parts = list(snapshot_parts(store, files, void, _columns_of))
            num_told = len(parts)
            parts += later_parts(store, files, void, _columns_of, unreadable)
        except UnreadableSnapshot as error:
            skipped.add(error.run)
        else:
            history = _assembled(files, parts, num_told)
            pool.release_unused()
            return history


def read_outcomes(store: Store, request_id: str | None = None) -> pa.Table:
    """Return the outcomes that count of one id, or of all (columns as in `INDEX`), in (run, unit) order."""
    skipped: set[str] = set()
    while True:
        parts = all_parts(store, history_files(store, skipped))
        if request_id is not None:
            parts = (part.filter(pc.equal(part.column("id"), request_id)) for part in parts)
        try:
            return pa.concat_tables([INDEX.empty_table(), *parts]).sort_by("commit")
        except UnreadableSnapshot as error:
            skipped.add(error.run)


def all_parts(store: Store, files: HistoryFiles) -> Iterator[pa.Table]:
    """Yield what is done part by part, in the columns of `INDEX`; see `later_parts`."""
    void = void_since(store, files)
    yield from snapshot_parts(store, files, void, _as_index)
    yield from later_parts(store, files, void, _as_index)


def _as_index(table: pa.Table) -> pa.Table:
    return table.cast(INDEX)


def void_since(store: Store, files: HistoryFiles) -> VoidOutputs:
    """Return what the runs after the snapshot made void: it leaves out itself what earlier ones did."""
    return read_void(store, [run.run for run in files.later if run.is_redo])


def snapshot_parts(
    store: Store, files: HistoryFiles, void: VoidOutputs, convert: Callable[[pa.Table], _T]
) -> Iterator[_T]:
    """Yield what the snapshot tells and is not void; see `later_parts`.

    Raises:
        UnreadableSnapshot: When it is torn.
    """
    if files.snapshot is None:
        return
    for table in snapshot_tables(store, files.snapshot):
        yield convert(void.left_out_of(table))


def snapshot_tables(store: Store, run: str) -> Iterator[pa.Table]:
    """Yield a run's snapshot in tables of some ten thousand rows. Raises UnreadableSnapshot."""
    path = layout.snapshot(run)
    tables = formats.read_batches(store.read(path), f"{store.url}/{path}", INDEX, few=_FEW)
    try:
        yield from tables
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnreadableSnapshot(run) from error


def later_parts(
    store: Store,
    files: HistoryFiles,
    void: VoidOutputs,
    convert: Callable[[pa.Table], _T],
    unreadable: list[str] | None = None,
) -> Iterator[_T]:
    """Yield what the runs after the snapshot did and is not void: one part for each file that is read.

    Args:
        store: The campaign.
        files: What is read.
        void: From `void_since`.
        convert: Applied to each part's table (the columns of `INDEX`) as it is read, so that only its result is held.
        unreadable: See `read_history`.
    """

    def from_index(item: tuple[str, RunFiles]) -> tuple[list[str], _T]:
        table = _index_part(store, *item)
        return pc.unique(table.column("commit")).to_pylist(), convert(void.left_out_of(table))

    def from_commit(path: str) -> _T:
        return convert(void.left_out_of(commit_rows(store, path, INDEX, unreadable)))

    covered: set[str] = set()
    indexes = ((path, run) for run in files.later for path in run.indexes)
    for commits, part in each_of(from_index, indexes, INDEX_THREADS):
        covered.update(commits)
        yield part
    yield from each_of(from_commit, [path for run in files.later for path in run.commits if path not in covered])


def _index_part(store: Store, path: str, run: RunFiles) -> pa.Table:
    """Read an index; one that is not readable covers nothing, since the commits are the truth (`verify` names it)."""
    try:
        table = formats.read_table(store.read(path), f"{store.url}/{path}", INDEX, few=_FEW)
    except (pa.ArrowException, ValueError):
        return INDEX.empty_table()
    # A commit that was removed by hand is made again, though an index still tells of it.
    return table.filter(pc.is_in(table.column("commit").cast(pa.string()), pa.array(run.commits, pa.string())))


def commit_rows(
    store: Store, path: str, schema: pa.Schema, unreadable: list[str] | None, *, is_whole: bool = False
) -> pa.Table:
    """Return a commit's rows in the columns of a schema, of which `commit` is its path; see `read_history`."""
    try:
        table = read_commit(store, path, [name for name in schema.names if name != "commit"], is_whole=is_whole)
    except UserError as error:
        if unreadable is None or type(error) is not UserError:
            raise
        unreadable.append(path)
        return schema.empty_table()
    return table.append_column("commit", pa.repeat(pa.scalar(path), table.num_rows)).select(schema.names)


# --- columns --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """One part's outcomes, as numbers; its texts stand once each."""

    requests: Digests
    ids: NDArray[np.uint64]
    numbers: NDArray[np.int32]
    is_ok: NDArray[np.bool_]
    failures: list[Failure]
    failure: NDArray[np.int32]
    commits: list[str]
    commit: NDArray[np.int32]
    replaced: Digests


def _columns_of(table: pa.Table) -> _Columns:
    ids = id_digests(table.column("id"))
    is_ok = np.asarray(pc.equal(table.column("status").cast(pa.string()), "ok")).astype(np.bool_)
    commits, commit = _codes(table.column("commit"))
    failed = np.flatnonzero(~is_ok)
    kinds: dict[Failure, int] = {}
    failure = np.full(len(ids), -1, np.int32)
    other = table.select(["error_type", "error_retryable", "stages_digest", "status"]).take(failed)
    rows = zip(*(column.to_pylist() for column in other.columns), strict=True)
    told = [
        Failure(
            error_type=error_type or "",
            retryable=bool(is_retryable),
            stages_digest=digest if status == "blocked" else None,
            is_blocked=status == "blocked",
        )
        for error_type, is_retryable, digest, status in rows
    ]
    failure[failed] = [kinds.setdefault(kind, len(kinds)) for kind in told]
    requests = request_digests(ids, table.column("request_key"))
    return _Columns(
        requests=requests,
        ids=ids,
        numbers=numbers_of(table.column("n")).astype(np.int32),
        is_ok=is_ok,
        failures=list(kinds),
        failure=failure,
        commits=commits,
        commit=commit,
        replaced=_replaced(table, requests),
    )


def _replaced(table: pa.Table, requests: Digests) -> Digests:
    """Return digests of the outputs that made or blocked outputs replace: a failed one replaces nothing."""
    replaces = numbers_of(table.column("replaces"))
    rows = np.flatnonzero(replaces >= 0)
    if len(rows):  # nearly always there are none
        status = table.column("status").take(pa.array(rows)).cast(pa.string())
        rows = rows[np.asarray(pc.not_equal(status, "failed")).astype(np.bool_)]
    return output_digests(requests.take(rows), replaces[rows])


def _codes(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int32]]:
    """Return a column's different texts, and for each row which it has."""
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    coded = coded.unify_dictionaries().combine_chunks()
    return coded.dictionary.to_pylist(), np.asarray(coded.indices).astype(np.int32)


def _assembled(files: HistoryFiles, parts: list[_Columns], num_told: int) -> History:
    """Put parts together, of which the first so many are the snapshot's; they are taken, so that none is held twice."""
    commits = sorted({path for part in parts for path in part.commits})
    ranks = {path: rank for rank, path in enumerate(commits)}
    failures = sorted({kind for part in parts for kind in part.failures}, key=repr)
    codes = {kind: code for code, kind in enumerate(failures)}
    num_in_snapshot = sum(len(part.ids) for part in parts[:num_told])
    num_objects = len(parts) - num_told + sum(run.is_redo for run in files.later)
    words = {
        "high": [part.requests.high for part in parts],
        "low": [part.requests.low for part in parts],
        "ids": [part.ids for part in parts],
    }
    numbers = {
        "number": [part.numbers for part in parts],
        "failure": [_renumbered(part.failure, [codes[kind] for kind in part.failures]) for part in parts],
        "commit": [_renumbered(part.commit, [ranks[path] for path in part.commits]) for part in parts],
    }
    flags = [part.is_ok for part in parts]
    replaced = _each_once([part.replaced for part in parts])
    parts.clear()
    high, low = (np.concatenate([np.empty(0, np.uint64), *words.pop(name)]) for name in ("high", "low"))
    commit = np.concatenate([np.empty(0, np.int32), *numbers.pop("commit")])
    order = digest_order(Digests(high=high, low=low), commit)
    commit = commit[order]
    high = high[order]  # one after the other, so that only one of them is held twice
    low = low[order]
    return History(
        files=files,
        num_in_snapshot=num_in_snapshot,
        num_objects=num_objects,
        requests=Digests(high=high, low=low),
        ids=np.concatenate([np.empty(0, np.uint64), *words.pop("ids")])[order],
        numbers=np.concatenate([np.empty(0, np.int32), *numbers.pop("number")])[order],
        is_ok=np.concatenate([np.empty(0, np.bool_), *flags])[order],
        failures=tuple(failures),
        failure=np.concatenate([np.empty(0, np.int32), *numbers.pop("failure")])[order],
        commits=tuple(commits),
        commit=commit,
        replaced=replaced,
    )


def _each_once(parts: list[Digests]) -> Digests:
    """Return the digests of all parts, sorted, each once."""
    both = Digests(
        high=np.concatenate([np.empty(0, np.uint64), *(part.high for part in parts)]),
        low=np.concatenate([np.empty(0, np.uint64), *(part.low for part in parts)]),
    )
    ordered = both.take(np.lexsort((both.low, both.high)))
    return ordered.take(group_starts(ordered))


def _renumbered(codes: NDArray[np.int32], numbers: list[int]) -> NDArray[np.int32]:
    """Return codes by their new numbers; -1 stays."""
    return np.append(np.asarray(numbers, np.int32), np.int32(-1))[codes]
