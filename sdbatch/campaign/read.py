"""One file of a campaign, read: a commit, a part of a manifest, a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from sdbatch.campaign import formats, layout, schema
from sdbatch.campaign.checked import holder_of, record_of, status_of, unreadable
from sdbatch.errors import JobError, UserError
from sdbatch.storage import Store


def no_run(store: Store) -> JobError:
    """Return the error of a place without a run; of a delivery's target it says from which campaign the files are."""
    try:
        rows = read_part(store, layout.DELIVERED, pa.schema([("campaign", pa.string())]))
    except FileNotFoundError:
        return JobError(f"{store.url}: no run there; `sdbatch run` makes the first one")
    except (pa.ArrowException, ValueError):
        origins = ""
    else:
        origins = ", ".join(sorted(filter(None, set(rows.column("campaign").to_pylist()))))
    named = f", from {origins}; name that" if origins else "; name the campaign"
    return JobError(f"{store.url}: no run there: it holds what was delivered{named} (`sdbatch verify` takes both)")


def read_commit(store: Store, path: str, columns: Sequence[str] | None = None, *, is_whole: bool = False) -> pa.Table:
    """Read one commit; columns that are younger than it are null.

    Args:
        store: The campaign.
        path: Path of the commit.
        columns: Columns of `schema.COMMIT` to read; all by default.
        is_whole: Whether damage in the others shows too.

    Raises:
        UserError: When it is not readable; a campaign is not edited by hand.
    """
    wanted = schema.COMMIT if columns is None else pa.schema([schema.COMMIT.field(name) for name in columns])
    try:
        table = formats.read_table(store.read(path), f"{store.url}/{path}", wanted, is_whole=is_whole)
        for name in _NEVER_NULL & set(table.column_names):
            if table.column(name).null_count:
                raise pa.ArrowInvalid(f"a row without {name}")
    except (pa.ArrowException, FileNotFoundError) as error:
        raise UserError(
            f"{store.url}/{path}: not a readable commit ({error}); remove it and run again, or, where a snapshot tells "
            "of it, `sdbatch redo`: its rows are made once more, and their assets, which are there, are taken as they "
            "are"
        ) from error
    return table


_NEVER_NULL = {"id", "request_key", "status"}


def read_requests(store: Store, path: str, wanted: pa.Schema | None = None) -> pa.Table:
    """Read one part of the manifest as a run saw it.

    Raises:
        UserError: When it is not readable.
    """
    try:
        return read_part(store, path, wanted)
    except (pa.ArrowException, ValueError) as error:
        raise UserError(
            f"{store.url}/{path}: not a readable part of a run's manifest ({error}); run again, which writes it anew"
        ) from error


def read_part(store: Store, path: str, wanted: pa.Schema | None = None, *, is_whole: bool = False) -> pa.Table:
    """Read a Parquet file that was made from commits or from a manifest; see `formats.read_table`."""
    return formats.read_table(store.read(path), f"{store.url}/{path}", wanted, is_whole=is_whole)


def read_json(store: Store, path: str) -> dict[str, Any]:
    """Read a small JSON object.

    Raises:
        FileNotFoundError: When it is not there.
        ValueError: When it is not a JSON object.
        NewerFormat: When a later version wrote it.
    """
    return formats.read_object(store.read(path), f"{store.url}/{path}")


def read_holder(store: Store, epoch: int) -> dict[str, Any]:
    """Read the lease of an epoch. See `checked.holder_of`."""
    return _read_checked(store, layout.lease(epoch), "lease", holder_of)


def read_status(store: Store, run: str) -> dict[str, Any]:
    """Read a run's `status.json`. See `checked.status_of`."""
    return _read_checked(store, layout.status_json(run), "status", status_of)


def read_record(store: Store, run: str) -> dict[str, Any]:
    """Read a run's `run.json`. See `checked.record_of`."""
    return _read_checked(store, layout.run_json(run), "record", record_of)


def _read_checked(
    store: Store, path: str, kind: str, checked: Callable[[Mapping[str, Any], str], dict[str, Any]]
) -> dict[str, Any]:
    name = f"{store.url}/{path}"
    try:
        values = read_json(store, path)
    except ValueError as error:
        raise unreadable(name, kind, str(error)[:100]) from error
    return checked(values, name)
