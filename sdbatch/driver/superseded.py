"""What of a campaign's older assets stays, though no row wants it: what people approved, and what was delivered.

decisions, ledgers of deliveries --> keepers_of() --> what `gc --superseded` leaves alone, by why
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sdbatch.campaign.superseded import Keeper
from sdbatch.deliver.ledger import read_ledger
from sdbatch.driver.verify_delivery import opened, place_of
from sdbatch.errors import JobError
from sdbatch.review.files import read_verdicts
from sdbatch.storage import Store
from sdbatch.verdicts import judged_files

APPROVED: Final = "somebody approved or picked it"
DELIVERED: Final = "was delivered"


def keepers_of(
    store: Store, delivered: Sequence[str], *, even_approved: bool, even_delivered: bool
) -> Mapping[str, Keeper]:
    """Return what stays, by why.

    Args:
        store: The campaign.
        delivered: Targets of deliveries, or their YAML files.
        even_approved: Whether what somebody approved or picked goes too.
        even_delivered: Whether what was delivered goes too.

    Raises:
        JobError: When no delivery made anything at a target.
    """
    keepers: dict[str, Keeper] = {}
    if not even_approved:
        verdicts = read_verdicts(store)
        files = judged_files(verdicts, "approved", "picked")
        keepers[APPROVED] = lambda row: (row["id"], row["request_key"], row["n"], row["sha256"]) in files
    if not even_delivered:
        masters = {sha256 for place in delivered for sha256 in _masters(place)}
        keepers[DELIVERED] = lambda row: row["sha256"] in masters
    return keepers


def refuse_alone(delivered: Sequence[str], *, even_approved: bool, even_delivered: bool) -> None:
    """Refuse what says which superseded assets stay where none of them is looked at.

    Raises:
        JobError: With the option.
    """
    options = {"--delivered": delivered, "--even-approved": even_approved, "--even-delivered": even_delivered}
    for name, value in options.items():
        if value:
            raise JobError(f"gc {name}: says which superseded assets go or stay; give --superseded as well")


def check_told(delivered: Sequence[str], *, delete: bool, even_delivered: bool) -> None:
    """Refuse to remove older assets before it is said where they were delivered: a campaign does not know it.

    Raises:
        JobError: When it is not said.
    """
    if delete and not delivered and not even_delivered:
        raise JobError(
            "gc --superseded --delete: name each delivery with --delivered TARGET, so that what it was made from "
            "stays, or say --even-delivered"
        )


def _masters(place: str) -> set[str]:
    """Return the sha256 of the masters that a target's table or ledger names."""
    with opened(*place_of(place)) as target:
        told = read_ledger(target.store, target.ledgers).told.values()
        return {row["asset_sha256"] for row in (*target.rows.values(), *told) if row.get("asset_sha256")}
