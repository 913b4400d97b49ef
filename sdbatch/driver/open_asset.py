"""One asset of a campaign for a notebook: as bytes, as a picture, or as a file on this machine.

a metadata row, or an id and a number --> asset_row() --> its file, compared with the committed sha256
"""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from sdbatch.campaign import layout
from sdbatch.driver.judged import effective_rows
from sdbatch.errors import UserError
from sdbatch.storage import Store

if TYPE_CHECKING:
    from sdbatch.encode.image import Picture

Row = Mapping[str, Any]
_READ = ["id", "n", "status", "asset", "sha256", "height", "width"]


def asset_row(store: Store, row: Row | str, n: int | None) -> Row:
    """Return the metadata row that is meant.

    Raises:
        UserError: When there is none, or it has no asset.
    """
    found = row if isinstance(row, Mapping) else _effective(store, row, n)
    name = f"{found.get('id')}/{found.get('n')}"
    asset = found.get("asset")
    if not isinstance(asset, str) or not layout.asset_parts(asset):
        status = found.get("status")
        raise UserError(f"{name}: has no asset" + (f"; it is {status}" if status not in {None, "ok"} else ""))
    if not isinstance(found.get("sha256"), str):
        raise UserError(f"{name}: the row does not say the asset's sha256; keep the columns asset and sha256")
    return found


def asset_bytes(store: Store, row: Row) -> bytes:
    """Return the file.

    Raises:
        UserError: When it is gone, or is another one than was committed.
    """
    try:
        data = store.read(row["asset"])
    except FileNotFoundError as error:
        raise UserError(f"{store.url}/{row['asset']}: is not there; `sdbatch redo` makes it again") from error
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise UserError(
            f"{store.url}/{row['asset']}: is not the file that the row tells of; read the metadata anew, or run "
            "`sdbatch verify`"
        )
    return data


def asset_image(store: Store, row: Row) -> Picture:
    """Return the picture, of a clip its first frame. Raises UserError."""
    from sdbatch.encode.asset import read_frames
    from sdbatch.encode.image import as_picture

    data = asset_bytes(store, row)
    suffix = row["asset"].rpartition(".")[2]
    try:
        return as_picture(read_frames(data, suffix, row.get("height") or 0, row.get("width") or 0)[0])
    except OSError as error:
        raise UserError(f"{store.url}/{row['asset']}: {error}") from error


def asset_path(store: Store, row: Row) -> Path:
    """Return a file on this machine: the campaign's own, or a copy that is removed when this process ends."""
    data = asset_bytes(store, row)
    if store.is_local:
        return Path(store.url, row["asset"])
    path: Path = _copies() / f"{row['sha256'][:8]}-{row['asset'].rpartition('/')[2]}"
    if not path.exists():
        path.write_bytes(data)
    return path


@cache
def _copies() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="sdbatch-assets-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _effective(store: Store, request_id: str, n: int | None) -> Row:
    for part in effective_rows(store).parts():
        mine = part.filter(pc.equal(part.column("id"), request_id)).select(_READ)
        rows: list[Row] = [row for row in mine.to_pylist() if n in {None, row["n"]}]
        if rows:
            return rows[0]
    number = "" if n is None else f" with output {n}"
    raise UserError(f"{store.url}: the newest run's manifest has no id {request_id}{number} that is made and wanted")
