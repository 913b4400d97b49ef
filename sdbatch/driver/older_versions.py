"""Older versions of the assets that a gallery shows: what was made for the same id under another request key.

listing of assets/ --> OlderVersions --> column `older`: paths, the newest first, one a line
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import pyarrow as pa

from sdbatch.campaign import layout
from sdbatch.storage import Store

OLDER_MAX: Final = 12
"""Older versions that are named of one asset."""


class OlderVersions:
    """The assets of a campaign by id, for ids that have them under more than one key.

    A campaign of one run has none, and is not listed.

    Args:
        store: The campaign.
    """

    def __init__(self, store: Store) -> None:
        self._by_id: dict[str, list[tuple[float, str, str]]] = {}
        if len(store.folders(layout.RUNS)) < 2:
            return
        found: dict[str, list[tuple[float, str, str]]] = defaultdict(list)
        for entry in store.list(layout.ASSETS):
            parts = layout.asset_parts(entry.path)
            if parts:
                found[parts[0]].append((entry.modified_s, parts[1], entry.path))
        self._by_id = {
            name: sorted(assets, reverse=True)
            for name, assets in found.items()
            if len({key for _, key, _ in assets}) > 1
        }

    def joined(self, rows: pa.Table) -> pa.Table:
        """Return metadata rows with the column `older`."""
        if not self._by_id:
            return rows
        texts = map(self._older, rows.column("id").to_pylist(), rows.column("request_key").to_pylist())
        return rows.append_column("older", pa.array(texts, pa.string()))

    def _older(self, request_id: str, request_key: str) -> str:
        assets = self._by_id.get(request_id, ())
        return "\n".join([path for _, key, path in assets if key != request_key[:8]][:OLDER_MAX])
