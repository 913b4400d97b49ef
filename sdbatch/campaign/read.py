"""What a campaign holds: read back from commits alone.

    runs/*/index/*.parquet + commits they do not cover + redo.parquet --> read_index() --> Index (one row per outcome)
    Index + requests of a run --> effective rows

Truth is in rows, never in units, so batch policy may change between runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from sdbatch.campaign import layout
from sdbatch.campaign.schema import INDEX, METADATA, VOID, from_parquet
from sdbatch.errors import UserError
from sdbatch.storage import Store
from sdbatch.types import RowOutcome, Unit

READ_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The last word on a request that was tried and is not whole.

    Attributes:
        error_type: Class name.
        retryable: Whether a run tries it again by itself.
    """

    error_type: str
    retryable: bool


@dataclass(slots=True, kw_only=True)
class Done:
    """What is committed.

    Attributes:
        ok: Outputs that are made: (id, request key) to their numbers.
        failed: Requests with a failure or a block: (id, request key) to the newest.
        keys: Every key an id was ever committed with; its newest commit's path, to see what changed.
    """

    ok: dict[tuple[str, str], frozenset[int]]
    failed: dict[tuple[str, str], Failure]
    keys: dict[str, str]

    def missing(self, ids: Iterable[str], keys: Iterable[str], num_outputs: Iterable[int]) -> list[tuple[int, ...]]:
        """Return the outputs of some requests that are not made yet."""
        made = map(self.ok.get, zip(ids, keys, strict=True), repeat(NOTHING))
        return list(map(_left, made, num_outputs))


NOTHING: Final = frozenset[int]()


# Of a million rows most have the same outputs: one value for all of them takes half the time, a tenth of the memory.
@lru_cache(maxsize=4096)
def _left(made: frozenset[int], num_outputs: int) -> tuple[int, ...]:
    return tuple([n for n in range(num_outputs) if n not in made])


@lru_cache(maxsize=4096)
def _with(made: frozenset[int], n: int) -> frozenset[int]:
    return made | {n}


def read_index(store: Store, unreadable: list[str] | None = None) -> pa.Table:
    """Return one row per committed outcome (schema INDEX), in (run, unit) order, void ones left out.

    Args:
        store: The campaign.
        unreadable: Gets the commits that cannot be read; without it one such is an error.
    """
    paths = [entry.path for entry in store.list(layout.RUNS)]
    commits = pa.array([path for path in paths if layout.is_commit(path)], pa.string())
    with ThreadPoolExecutor(READ_THREADS) as pool:
        indexed = list(pool.map(lambda path: _index_at(store, path), filter(layout.is_index, paths)))
        # A commit that was removed by hand is made again, though an index still tells of it.
        indexed = [table.filter(pc.is_in(table.column("commit"), commits)) for table in indexed]
        covered = {path for table in indexed for path in pc.unique(table.column("commit")).to_pylist()}
        loose = [path for path in commits.to_pylist() if path not in covered]
        tables = [*indexed, *pool.map(lambda path: _rows_of(store, path, INDEX, unreadable), loose)]
    table = pa.concat_tables([INDEX.empty_table(), *tables])
    return without_void(table.sort_by("commit"), store)


def read_rows(store: Store, schema: pa.Schema, unreadable: list[str] | None = None) -> pa.Table:
    """Return every committed outcome from the commits alone, in (run, unit) order, void ones too.

    Args:
        store: The campaign.
        schema: Columns of a commit, and `commit`, its path.
        unreadable: See `read_index`.
    """
    commits = [entry.path for entry in store.list(layout.RUNS) if layout.is_commit(entry.path)]
    with ThreadPoolExecutor(READ_THREADS) as pool:
        tables = list(pool.map(lambda path: _rows_of(store, path, schema, unreadable), commits))
    return pa.concat_tables([schema.empty_table(), *tables]).sort_by("commit")


def without_void(table: pa.Table, store: Store) -> pa.Table:
    """Leave out commits older than a run that made their outputs void."""
    for path in (entry.path for entry in store.list(layout.RUNS) if layout.is_redo(entry.path)):
        run = layout.run_of(path)
        void = from_parquet(store.read(path)).cast(VOID)
        outputs = set(zip(*(void.column(name).to_pylist() for name in VOID.names), strict=True))
        rows = zip(*(table.column(name).to_pylist() for name in (*VOID.names, "commit")), strict=True)
        keep = [
            not ({(request_id, key, n), (request_id, key[:8], n)} & outputs)
            or (layout.run_of(commit) or "") >= (run or "")
            for request_id, key, n, commit in rows
        ]
        table = table.filter(pa.array(keep, type=pa.bool_()))
    return table


def index_of(unit: Unit, outcomes: tuple[RowOutcome, ...], commit: str) -> pa.Table:
    """Return a unit's rows of an index file: from its receipt what is not ok, the rest from the unit itself."""
    ended = {(outcome.id, outcome.n): outcome for outcome in outcomes}
    rows = []
    for request in unit.requests:
        for n in (None,) if (request.id, None) in ended else request.outputs:
            outcome = ended.get((request.id, n), _OK)
            place = (request.id, request.request_key, n)
            rows.append((*place, outcome.status, outcome.error_type, outcome.error_retryable, commit))
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(values, field.type) for values, field in zip(columns, INDEX, strict=True)], schema=INDEX)


_OK: Final = RowOutcome(id="", request_key="", n=None, status="ok")


def done_of(index: pa.Table) -> Done:
    """Sort an index into what is made and what failed."""
    ids = index.column("id").to_pylist()
    done = Done(ok={}, failed={}, keys=dict(zip(ids, _shared(index.column("commit")), strict=True)))
    is_ok = pc.equal(index.column("status"), "ok")
    made, other = index.filter(is_ok), index.filter(pc.invert(is_ok))
    ok = done.ok
    for pair, n in zip(_pairs(made), made.column("n").to_pylist(), strict=True):
        ok[pair] = _with(ok.get(pair, NOTHING), n)
    kinds = zip(*(other.column(name).to_pylist() for name in ("error_type", "error_retryable")), strict=True)
    for pair, (error_type, is_retryable) in zip(_pairs(other), kinds, strict=True):
        done.failed[pair] = Failure(error_type=error_type or "", retryable=bool(is_retryable))
    return done


def _pairs(index: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(index.column("id").to_pylist(), index.column("request_key").to_pylist(), strict=True)


def _shared(column: pa.ChunkedArray) -> Iterator[str]:
    """Yield texts of which there are few, each as one object."""
    return map(sys.intern, column.to_pylist())


def read_commit(store: Store, path: str, columns: list[str] | None = None) -> pa.Table:
    """Read one commit.

    Raises:
        UserError: When it is not readable; a campaign is not edited by hand.
    """
    try:
        return from_parquet(store.read(path), columns)
    except (pa.ArrowException, FileNotFoundError) as error:
        raise UserError(
            f"{store.url}/{path}: not a readable commit ({error}); remove it and run again: "
            "its rows are made once more, and their assets, which are there, are taken as they are"
        ) from error


def winners(index: pa.Table) -> pa.Table:
    """Return the rows that count for each (id, request key, n): ok over the rest, then the lowest (run, unit).

    A request's failure as a whole (n null) counts only while none of its outputs is ok.
    """
    best: dict[tuple[str, str, int | None], tuple[bool, int]] = {}
    columns = (index.column(name).to_pylist() for name in ("id", "request_key", "n", "status"))
    whole: set[tuple[str, str]] = set()
    for position, (request_id, key, n, status) in enumerate(zip(*columns, strict=True)):
        place = (request_id, key, n)
        rank = (status != "ok", position)
        if place not in best or rank < best[place]:
            best[place] = rank
        if status == "ok":
            whole.add((request_id, key))
    positions = sorted(
        position
        for (request_id, key, n), (_, position) in best.items()
        if n is not None or (request_id, key) not in whole
    )
    return index.take(pa.array(positions, type=pa.int64()))


def effective_parts(store: Store, run: str, index: pa.Table, *, thumbnails: bool = False) -> Iterator[pa.Table]:
    """Yield the effective rows of a run's manifest, one table per part of it, in manifest order.

    Args:
        store: The campaign.
        run: Whose manifest counts.
        index: From `read_index`.
        thumbnails: Whether to add the column `thumbnail`.
    """
    columns = [*METADATA.names, *(["thumbnail"] if thumbnails else [])]
    winning = winners(index)
    cache: dict[str, pa.Table] = {}
    for path in sorted(e.path for e in store.list(f"{layout.RUNS}/{run}/requests") if e.path.endswith(".parquet")):
        requests = from_parquet(store.read(path))
        own = [name for name in requests.column_names if name.startswith("x_")]
        order = pa.array(range(requests.num_rows), type=pa.int64())
        wanted = requests.select(["id", "request_key", *own]).append_column("order", order)
        asked = requests.select(["id", "request_key", "num_outputs"])
        found = winning.join(asked, ["id", "request_key"], join_type="inner")
        # Outputs beyond what the row asks for now were made for an earlier manifest; they stay, and do not count.
        found = found.filter(pc.less(pc.fill_null(found.column("n"), -1), found.column("num_outputs")))
        commits = sorted(set(found.column("commit").to_pylist()))
        cache = {commit: table for commit, table in cache.items() if commit in commits}
        missing = [commit for commit in commits if commit not in cache]
        with ThreadPoolExecutor(READ_THREADS) as pool:
            read = pool.map(lambda commit: read_commit(store, commit, columns), missing)
            cache.update(zip(missing, read, strict=True))
        yield _joined(found, cache, wanted, columns, own)


def latest_run(store: Store) -> str | None:
    """Return the newest run that wrote down its manifest, None in an empty campaign."""
    parts = {
        run
        for entry in store.list(layout.RUNS)
        if (run := layout.run_of(entry.path)) and f"/{run}/requests/" in entry.path
    }
    return max(parts, default=None)


def read_json(store: Store, path: str) -> dict[str, Any]:
    """Read a small JSON object. Raises FileNotFoundError."""
    value: dict[str, Any] = json.loads(store.read(path))
    return value


def _joined(
    found: pa.Table, commits: dict[str, pa.Table], wanted: pa.Table, columns: list[str], own: list[str]
) -> pa.Table:
    """Pick the winning rows out of their commits and put the manifest's own columns beside them."""
    keys = ["id", "request_key", "n"]
    picked = []
    for commit, table in commits.items():
        mine = found.filter(pc.equal(found.column("commit"), commit)).select(keys)
        # Joins do not match null with null; -1 stands for a request that failed as a whole.
        filled, wins = (_with_n(part, -1) for part in (table, mine))
        picked.append(filled.filter(_is_member(filled, wins)))
    if not picked:
        return METADATA.empty_table()
    rows = pa.concat_tables(picked)
    places = {
        (request_id, key): order
        for request_id, key, order in zip(
            *(wanted.column(name).to_pylist() for name in ("id", "request_key", "order")), strict=True
        )
    }
    pairs = zip(rows.column("id").to_pylist(), rows.column("request_key").to_pylist(), strict=True)
    rows = rows.append_column("order", pa.array([places[pair] for pair in pairs], type=pa.int64()))
    rows = rows.sort_by([("order", "ascending"), ("n", "ascending")])
    mine = wanted.take(rows.column("order"))
    rows = _with_n(rows, None).select(columns)
    for name in own:
        rows = rows.append_column(name, mine.column(name))
    return rows


def _is_member(table: pa.Table, wins: pa.Table) -> pa.Array:
    wanted = set(zip(*(wins.column(name).to_pylist() for name in ("id", "request_key", "n")), strict=True))
    rows = zip(*(table.column(name).to_pylist() for name in ("id", "request_key", "n")), strict=True)
    return pa.array([row in wanted for row in rows], type=pa.bool_())


def _with_n(table: pa.Table, null: int | None) -> pa.Table:
    """Return the table with `n` null as -1, or -1 as null again."""
    n = table.column("n")
    swapped = pc.fill_null(n, -1) if null == -1 else pc.if_else(pc.equal(n, -1), pa.scalar(None, pa.int32()), n)
    return table.set_column(table.column_names.index("n"), pa.field("n", pa.int32()), swapped)


def _index_at(store: Store, path: str) -> pa.Table:
    """Read an index; one that is not readable covers nothing, since the commits are the truth (`verify` names it)."""
    try:
        return from_parquet(store.read(path)).cast(INDEX)
    except (pa.ArrowException, ValueError):
        return INDEX.empty_table()


def _rows_of(store: Store, path: str, schema: pa.Schema, unreadable: list[str] | None) -> pa.Table:
    try:
        table = read_commit(store, path, [name for name in schema.names if name != "commit"])
    except UserError:
        if unreadable is None:
            raise
        unreadable.append(path)
        return schema.empty_table()
    return table.append_column("commit", pa.array([path] * table.num_rows, type=pa.string())).select(schema.names)
