"""The files of a campaign's runs, found by listing prefixes: never more of them than a reading needs.

runs/ (its folders) --> the newest run with a snapshot --> that run and each after it, file by file
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

from sdbatch.campaign import layout
from sdbatch.storage import Entry, Store

READ_THREADS: Final = 8
INDEX_THREADS: Final = 3
"""Indexes are large (65,536 rows), so fewer of them than of commits are held at a time."""
RUNS_ONE_BY_ONE_MAX: Final = 16
"""After so many runs without a snapshot, as an older version left them, all are listed in one call."""

_T = TypeVar("_T")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFiles:
    """The files of one run that tell what is done.

    Attributes:
        run: Its id.
        commits: Paths, sorted.
        indexes: Paths, sorted.
        is_redo: Whether it has a list of void outputs.
        is_recorded: Whether it wrote its `run.json`, and so has ended.
        snapshot_bytes: Length of its snapshot: 0 where a follower saw to it that none comes, None where there is none.
    """

    run: str
    commits: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    is_redo: bool = False
    is_recorded: bool = False
    snapshot_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryFiles:
    """The files that tell, together, all that is done.

    Attributes:
        snapshot: The run whose snapshot tells of it and every earlier run; None when there is none that can be read.
        later: The runs after it, in order.
    """

    snapshot: str | None
    later: tuple[RunFiles, ...]


def run_ids(store: Store) -> list[str]:
    """Return the ids of all runs in order, from one listing of folders."""
    return sorted(filter(layout.is_run, store.folders(layout.RUNS)))


def history_files(store: Store, unreadable: Collection[str] = (), follower: str | None = None) -> HistoryFiles:
    """Return the newest snapshot and what came after it.

    Args:
        store: The campaign.
        unreadable: Runs whose snapshots are passed over.
        follower: A run that holds the lease and now begins. From then on no earlier run can add a snapshot: it might
            leave out commits that the follower counted. An empty file, put if absent, takes its place.
    """
    while True:
        found = _look_back(store, unreadable)
        if follower is None or not _forestall(store, found, follower):
            return found


def _look_back(store: Store, unreadable: Collection[str]) -> HistoryFiles:
    runs = run_ids(store)
    later: list[RunFiles] = []
    for run in reversed(runs[-RUNS_ONE_BY_ONE_MAX:]):
        files = files_of_run(run, store.list(f"{layout.RUNS}/{run}"))
        if files.snapshot_bytes and run not in unreadable:
            return HistoryFiles(snapshot=run, later=tuple(reversed(later)))
        later.append(files)
    if len(runs) <= RUNS_ONE_BY_ONE_MAX:
        return HistoryFiles(snapshot=None, later=tuple(reversed(later)))
    every_run = files_by_run(store)
    told = [files.run for files in every_run if files.snapshot_bytes and files.run not in unreadable]
    newest = max(told, default=None)
    return HistoryFiles(
        snapshot=newest, later=tuple(files for files in every_run if newest is None or files.run > newest)
    )


def _forestall(store: Store, found: HistoryFiles, follower: str) -> bool:
    """Put an empty snapshot for each earlier run that has neither ended nor one; return whether one was faster."""
    open_runs = [
        files.run
        for files in found.later
        if files.run < follower and files.snapshot_bytes is None and not files.is_recorded
    ]
    stood = [run for run in open_runs if not store.put_new(layout.snapshot(run), b"")]
    return any(_is_snapshot(store, run) for run in stood)


def _is_snapshot(store: Store, run: str) -> bool:
    """Whether a run has a snapshot and no empty file: a reply that was lost looks like a lost race."""
    return store.stat(layout.snapshot(run)).size_bytes > 0


def newest_run_with_manifest(store: Store) -> str | None:
    """Return the newest run that wrote down its manifest, None in an empty campaign."""
    runs = reversed(run_ids(store))
    return next((run for run in runs if request_parts(store, run)), None)


def request_parts(store: Store, run: str, *, with_grid: bool = False) -> list[str]:
    """Return the paths of the parts of the manifest as a run saw it, in order; none where it never wrote them.

    Args:
        store: The campaign.
        run: The run.
        with_grid: Whether the rows of a grid count as well: they are beside the campaign's own manifest.
    """
    folders = [layout.requests_folder(run), *([layout.grid_requests_folder(run)] if with_grid else [])]
    return [path for folder in folders for path in parts_in(store, folder)]


def parts_in(store: Store, folder: str) -> list[str]:
    """Return the paths of a manifest's parts, in order; none where the first is not there, which is written last."""
    listed = (entry.path for entry in store.list(folder, deep=False))
    paths = sorted(path for path in listed if path.endswith(".parquet"))
    return paths if layout.first_part(folder) in paths[:1] else []


def files_by_run(store: Store) -> list[RunFiles]:
    """Return the files of every run in order, from one deep listing."""
    entries: dict[str, list[Entry]] = {}
    for entry in store.list(layout.RUNS):
        if run := layout.run_of(entry.path):
            entries.setdefault(run, []).append(entry)
    return [files_of_run(run, entries[run]) for run in sorted(entries)]


def files_of_run(run: str, entries: Iterable[Entry]) -> RunFiles:
    """Sort a run's files by what they are for."""
    sizes = {entry.path: entry.size_bytes for entry in entries}
    return RunFiles(
        run=run,
        commits=tuple(sorted(filter(layout.is_commit, sizes))),
        indexes=tuple(sorted(filter(layout.is_index, sizes))),
        is_redo=layout.redo(run) in sizes,
        is_recorded=layout.run_json(run) in sizes,
        snapshot_bytes=sizes.get(layout.snapshot(run)),
    )


def each_of(call: Callable[[_T], _Result], items: Iterable[_T], num_threads: int = READ_THREADS) -> Iterator[_Result]:
    """Yield a call's results in order; a few calls at a time wait for the store, so that few results are held."""
    if num_threads == 1:
        yield from map(call, items)
        return
    waiting = iter(items)
    with ThreadPoolExecutor(num_threads) as pool:
        while chunk := list(islice(waiting, num_threads)):
            yield from pool.map(call, chunk)
