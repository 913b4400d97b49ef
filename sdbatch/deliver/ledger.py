"""The ledger of a target: one file for each invocation that made or removed something, never changed afterwards.

    lines --> written() --> deliveries/<utc>-<first 8 digits of its sha256>.jsonl

Its first line holds the digest of the file before it, so that a file that was taken out or changed shows. Two
invocations at a time may name the same one: a fork, which is allowed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sdbatch.deliver.index import MADE, Rows
from sdbatch.storage import Store

LEDGER_VERSION: Final = 1
_COLUMNS: Final = ("name", "sha256", "file_bytes", "format", "id", "request_key", "n", "asset_sha256", "key")


def written(
    store: Store, folder: str, head: Mapping[str, Any], rows: Rows, removed: Iterable[str], stamp: str
) -> str | None:
    """Write one ledger file about the rows that no ledger tells of yet; return its name, None when there is nothing.

    Args:
        store: The target.
        folder: Folder of the ledger.
        head: Values of the first line.
        rows: The rows; `ledger` is set in those that are told of.
        removed: Names of files that were removed.
        stamp: Time of the invocation, which begins the name.
    """
    told = [row for _, row in sorted(rows.items()) if row["status"] == MADE and row["ledger"] is None]
    gone = sorted(removed)
    if not told and not gone:
        return None
    before = [entry.path for entry in store.list(folder, deep=False) if entry.path.endswith(".jsonl")]
    previous = hashlib.sha256(store.read(before[-1])).hexdigest() if before else None
    first = {"format_version": LEDGER_VERSION, "previous": previous, "at": stamp, **head}
    lines = [
        first,
        *({"made": {name: row[name] for name in _COLUMNS}} for row in told),
        *({"removed": n} for n in gone),
    ]
    data = "".join(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n" for line in lines).encode()
    name = f"{stamp}-{hashlib.sha256(data).hexdigest()[:8]}.jsonl"
    store.put_new(f"{folder}/{name}", data, "application/x-ndjson")
    for row in told:
        row["ledger"] = name
    return name
