"""One file of a campaign, read: a commit, a part of a manifest, a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from sdbatch.campaign import formats, schema
from sdbatch.errors import UserError
from sdbatch.storage import Store


def read_commit(store: Store, path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one commit; columns that are younger than it are null.

    Args:
        store: The campaign.
        path: Path of the commit.
        columns: Columns of `schema.COMMIT` to read; all by default.

    Raises:
        UserError: When it is not readable; a campaign is not edited by hand.
    """
    wanted = schema.COMMIT if columns is None else pa.schema([schema.COMMIT.field(name) for name in columns])
    try:
        return formats.read_table(store.read(path), f"{store.url}/{path}", wanted)
    except (pa.ArrowException, FileNotFoundError) as error:
        raise UserError(
            f"{store.url}/{path}: not a readable commit ({error}); remove it and run again, or, where a snapshot tells "
            "of it, `sdbatch redo`: its rows are made once more, and their assets, which are there, are taken as they "
            "are"
        ) from error


def read_part(store: Store, path: str, wanted: pa.Schema | None = None) -> pa.Table:
    """Read a Parquet file that was made from commits or from a manifest; see `formats.read_table`."""
    return formats.read_table(store.read(path), f"{store.url}/{path}", wanted)


def read_json(store: Store, path: str) -> dict[str, Any]:
    """Read a small JSON object.

    Raises:
        FileNotFoundError: When it is not there.
        ValueError: When it is not a JSON object.
        NewerFormat: When a later version wrote it.
    """
    return formats.read_object(store.read(path), f"{store.url}/{path}")
