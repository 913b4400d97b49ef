"""Same picture, once: an output that several ids take is rendered once, and the others get copies of its file.

    row of the first taker + its bytes --> copies_of() --> a row for each further taker
    Request with origins --> Copier.copy() --> rows of what an earlier run made + what is left to render

A copy is the same bytes under another id, with their sha256 compared; it keeps the file type of its origin.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Final

from sdbatch.campaign import layout
from sdbatch.campaign.read import read_commit
from sdbatch.campaign.write import StoredAsset, put_asset, request_columns
from sdbatch.encode.asset import is_alike, is_asset_of
from sdbatch.errors import RowError, UserError
from sdbatch.recipe import parse_recipe
from sdbatch.storage import Store
from sdbatch.types import STAGES, Origin, Request
from sdbatch.worker.record import Row, failure_columns

LOG = logging.getLogger("sdbatch.worker")
_SECONDS: Final = tuple(f"{stage}_s" for stage in STAGES)


def put_output(
    store: Store, request: Request, taker: str, n: int, data: bytes, suffix: str, media_type: str
) -> StoredAsset:
    """Put the file of one output under one of the ids that take it.

    Raises:
        AssetConflict: When another file has that name.
    """

    def is_same_request(stored: bytes) -> bool:
        # Anybody can write our key into a file of theirs, so its picture is looked at as well.
        return is_asset_of(stored, suffix, request.request_key, n) and is_alike(stored, data, suffix)

    path = layout.asset(taker, request.request_key, n, suffix)
    return put_asset(store, path, data, media_type, is_same_request)


def stored_columns(stored: StoredAsset) -> Row:
    """Return the metadata columns that say what lies in the store."""
    return {
        "asset": stored.path,
        "sha256": stored.sha256,
        "asset_bytes": stored.asset_bytes,
        "adopted": stored.adopted,
    }


def copies_of(
    row: Row, request: Request, n: int, read: Callable[[], bytes], store: Store, takers: Sequence[str] | None = None
) -> list[Row]:
    """Give an output to the other ids that take it.

    Args:
        row: Of the id whose file is stored, or that was blocked or failed: then so are the others.
        request: What they share.
        n: Output number.
        read: Returns the stored file.
        store: The campaign.
        takers: The ids; by default all but the first.

    Returns:
        A row for each of them.
    """
    others = request.takers_of(n)[1:] if takers is None else takers
    # The seconds are those of one pipeline call: they stand in the row of the id that it was made for.
    plain = {name: value for name, value in row.items() if name not in _SECONDS}
    if row["status"] != "ok" or not others:
        return [{**plain, "id": taker} for taker in others]
    data = read()
    suffix = row["asset"].rpartition(".")[2]
    rows = []
    for taker in others:
        try:
            stored = put_output(store, request, taker, n, data, suffix, row["media_type"])
        except RowError as error:
            asked = request_columns(request, parse_recipe(request.recipe), n)
            rows.append({**asked, **failure_columns(error), "worker": row["worker"]})
        else:
            rows.append({**plain, **stored_columns(stored), "copied_from": row["asset"]})
        rows[-1]["id"] = taker
    return rows


class Copier:
    """Copies what earlier runs made of a request's key.

    Args:
        store: The campaign's.
        worker: Name of the worker, for the rows.
    """

    def __init__(self, store: Store, worker: str) -> None:
        self._store = store
        self._worker = worker

    def copy(self, requests: Sequence[Request]) -> tuple[list[Row], list[Request]]:
        """Copy every output that has an origin; one whose origin is gone, or differs from its commit, is left.

        Returns:
            The rows of the copies, and the requests with the outputs that are left to render.
        """
        rows: list[Row] = []
        left: list[Request] = []
        commits: dict[str, list[Row]] = {}
        for request in requests:
            copied: set[int] = set()
            for origin in request.origins:
                origin_row = self._origin_row(request, origin, commits)
                data = self._whole_asset(origin_row) if origin_row else None
                if origin_row and data is not None:
                    rows += self._copies(request, origin_row, data)
                    copied.add(origin.n)
            if len(copied) < len(request.outputs):
                left.append(_without(request, copied) if copied else request)
        return rows, left

    def _origin_row(self, request: Request, origin: Origin, commits: dict[str, list[Row]]) -> Row | None:
        if origin.commit not in commits:
            try:
                commits[origin.commit] = read_commit(self._store, origin.commit).to_pylist()
            except UserError as error:
                LOG.warning("not copied", extra={"commit": origin.commit, "error": str(error)})
                commits[origin.commit] = []
        place = (request.request_key, origin.n, "ok")
        rows = commits[origin.commit]
        return next((row for row in rows if (row["request_key"], row["n"], row["status"]) == place), None)

    def _whole_asset(self, row: Row) -> bytes | None:
        """Return the file of a committed row; None when it is gone, or not what was committed."""
        if not layout.asset_parts(row["asset"] or ""):
            LOG.warning("not copied", extra={"commit": row["run_id"], "error": f"{row['asset']!r} is no asset"})
            return None
        try:
            data = self._store.read(row["asset"])
        except FileNotFoundError:
            return None
        return data if hashlib.sha256(data).hexdigest() == row["sha256"] else None

    def _copies(self, request: Request, origin_row: Row, data: bytes) -> list[Row]:
        n = origin_row["n"]
        row = {
            **origin_row,
            **request_columns(request, parse_recipe(request.recipe), n),
            "worker": self._worker,
            "attempts": 0,
        }
        return copies_of(row, request, n, lambda: data, self._store, request.takers_of(n))


def _without(request: Request, copied: set[int]) -> Request:
    """Return a request without the outputs that were copied."""
    kept = [place for place, n in enumerate(request.outputs) if n not in copied]
    return request._replace(
        outputs=tuple(request.outputs[place] for place in kept),
        takers=tuple(request.takers[place] for place in kept) if request.takers else (),
        origins=(),
    )
