"""A manifest whose rows are made beside those of the campaign's own: they take no place in its metadata and gallery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sdbatch.campaign.history import History
from sdbatch.driver.rows.tables import ManifestHere
from sdbatch.storage import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """Rows that are made beside the manifest's.

    Attributes:
        manifest: The rows.
        write: Called once they are made, with the campaign, the run and all that is done: shows them.
    """

    manifest: ManifestHere
    write: Callable[[Store, str, History], None]
