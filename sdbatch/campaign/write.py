"""Assets first, whole and put-if-absent; then the unit's one Parquet file, put-if-absent. That write is the commit.

    bytes --> put_asset() --> recorded digest        rows --> put_commit() --> won, or somebody else had

Nothing is renamed, appended or overwritten, so a worker may be killed between any two calls, or come late: it can add
a file nobody refers to, and never change one that somebody does.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from sdbatch.campaign import layout
from sdbatch.campaign.schema import COMMIT, footer, table, to_parquet
from sdbatch.columns import LISTED_ROLES
from sdbatch.errors import AssetConflict, RowError
from sdbatch.logs import redacted
from sdbatch.points import reached
from sdbatch.recipe import Recipe, parse_recipe
from sdbatch.storage import Store
from sdbatch.types import STAGES, Receipt, Request, RowOutcome, Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAsset:
    """An asset as it lies in the store.

    Attributes:
        path: In the campaign.
        sha256: Of the stored bytes.
        asset_bytes: Their number.
        adopted: Whether it was there already.
    """

    path: str
    sha256: str
    asset_bytes: int
    adopted: bool


def put_asset(
    store: Store, path: str, data: bytes, media_type: str, is_same_request: Callable[[bytes], bool]
) -> StoredAsset:
    """Put an asset, or adopt the one that is there.

    Bytes that differ are a zombie's on another device: the stored ones win, when they are a whole file of this request.

    Args:
        store: The campaign.
        path: From `layout.asset`.
        data: Whole file.
        media_type: For the store.
        is_same_request: Checks a stored file that differs.

    Raises:
        AssetConflict: When what is stored is not this request's, or not whole.
    """
    created = store.put_new(path, data, media_type, syncs=False)  # `put_commit` does, before anything refers to it
    stored = data
    if not created:
        stored = store.read(path)
        if stored != data and not is_same_request(stored):
            raise AssetConflict(f"{path} is stored with other content; `sdbatch redo` removes it and makes it again")
    digest = hashlib.sha256(stored).hexdigest()
    reached("between-two-assets")
    return StoredAsset(path=path, sha256=digest, asset_bytes=len(stored), adopted=not created)


def put_commit(store: Store, run_id: str, unit: str, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Write a unit's commit, once its assets survive a power cut; return whether these rows are the ones that stand.

    A lost reply looks like somebody else's win, so every attempt carries an id of its own that is compared.
    """
    attempt = uuid.uuid4().hex
    found = table(rows, COMMIT)
    for name, value in {"run_id": run_id, "unit": unit, "committed_at": datetime.now(UTC)}.items():
        field = COMMIT.field(name)
        same = pa.repeat(pa.scalar(value, field.type), found.num_rows)
        found = found.set_column(COMMIT.get_field_index(name), field, same)
    data = to_parquet(found, for_query=False, attempt=attempt, run_id=run_id, unit=unit)
    path = layout.commit(run_id, unit)
    if found.column("asset").null_count < found.num_rows:
        store.sync(layout.ASSETS)
    reached("before-the-commit")
    is_ours = store.put_new(path, data, "application/vnd.apache.parquet")
    reached("after-the-commit")
    return is_ours or footer(store.read(path)).get("attempt") == attempt


def request_columns(request: Request, recipe: Recipe, n: int | None) -> dict[str, Any]:
    """Return the metadata columns that follow from a request alone; columns without a value are left out."""
    columns = recipe.metadata()
    columns["id"] = request.id
    columns["request_key"] = request.request_key
    columns["n"] = n
    columns["model"] = request.model
    columns["model_revision"] = recipe.model
    columns["seed"] = recipe.output_seed(n or 0)
    columns["recipe"] = request.recipe
    if request.sources:
        columns["source_digests"] = [source.digest for source in request.sources]
    for source in request.sources:
        if source.role in LISTED_ROLES:
            columns.setdefault(source.role, []).append(source.url)
        else:
            columns.setdefault(source.role, source.url)
    return columns


def lineage_of(requests: Iterable[Request]) -> dict[tuple[str, str, int | None], int]:
    """Return by (id, request key, n) which number an output replaces."""
    return {
        (taker, request.request_key, n): replaced for request in requests for taker, n, replaced in request.replaces
    }


def with_lineage(rows: list[dict[str, Any]], requests: Iterable[Request]) -> list[dict[str, Any]]:
    """Return a unit's rows with `replaces`, where an output is made in the place of one that is not wanted."""
    lineage = lineage_of(requests)
    if not lineage:
        return rows
    return [{**row, "replaces": lineage.get((row["id"], row["request_key"], row["n"]))} for row in rows]


def error_columns(kind: str, message: str, *, retryable: bool, traceback: str = "") -> dict[str, Any]:
    """Return the columns of a failure; the traceback leaves its digest, so that equal failures can be grouped."""
    return {
        "status": "failed",
        "error_type": kind,
        "error_message": redacted(message)[:500],
        "error_retryable": retryable,
        "error_traceback_sha256": hashlib.sha256(traceback.encode()).hexdigest() if traceback else None,
    }


def receipt_of(unit: str, worker: str, rows: Sequence[Mapping[str, Any]]) -> Receipt:
    """Return the receipt of a unit as its committed rows tell it: calls that failed left no trace there."""
    adopted = [row["adopted"] for row in rows if row["status"] == "ok"]
    batch_sizes = [row["batch_size"] for row in rows if row.get("denoise_s") is not None]
    stage_s = {stage: sum([row.get(name) or 0.0 for row in rows]) for stage, name in _STAGE_COLUMNS.items()}
    return Receipt(
        unit=unit,
        worker=worker,
        outcomes=outcomes_of(rows),
        model_calls=math.ceil(sum([1 / size for size in batch_sizes]) - 1e-9),
        rows_generated=len(batch_sizes),
        assets_put=adopted.count(False),
        assets_adopted=adopted.count(True),
        assets_copied=sum([row["status"] == "ok" and row.get("copied_from") is not None for row in rows]),
        asset_bytes=sum([row.get("asset_bytes") or 0 for row in rows]),
        generate_s=stage_s["denoise"] + stage_s["decode"],
        load_s=stage_s["load"],
        batch_size=max(batch_sizes, default=0),
        stage_s=stage_s,
        rows_truncated=len({row["id"] for row in rows if row.get("prompt_truncated")}),
    )


_STAGE_COLUMNS = {stage: f"{stage}_s" for stage in STAGES}


def outcomes_of(rows: Iterable[Mapping[str, Any]]) -> tuple[RowOutcome, ...]:
    """Return how the rows of a commit ended that are not ok."""
    return tuple(
        RowOutcome(
            id=row["id"],
            request_key=row["request_key"],
            n=row["n"],
            status=row["status"],
            error_type=row.get("error_type"),
            error_message=row.get("error_message"),
            error_retryable=bool(row.get("error_retryable")),
            stages_digest=row.get("stages_digest") if row["status"] == "blocked" else None,
        )
        for row in rows
        if row["status"] != "ok"
    )


def failed_unit_rows(
    unit: Unit, worker: str, kind: type[RowError], message: str, attempts: int
) -> list[dict[str, Any]]:
    """Return the rows of a unit whose requests the driver sets aside; a process that ended left no traceback."""
    return [
        {
            **request_columns(request, parse_recipe(request.recipe), None),
            **error_columns(kind.__name__, message, retryable=kind.retryable),
            "attempts": attempts,
            "worker": worker,
            "id": taker,
        }
        for request in unit.requests
        for taker in request.ids
    ]
