"""Whether a run may let rows of its campaign leave; see `sdbatch.campaign.leaving`."""

from __future__ import annotations

from collections.abc import Callable

from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.history import History
from sdbatch.campaign.leaving import Leaving, leaving_rows
from sdbatch.driver.rows.scan import ResolvedManifest
from sdbatch.errors import UserError
from sdbatch.job import Job
from sdbatch.storage import Store


def rows_leaving(manifest: ResolvedManifest, store: Store, history: Callable[[], History]) -> Leaving:
    """Return the rows of a campaign that are not in a manifest; its history is asked when ids are gone."""
    return leaving_rows(store, lambda: manifest.parts(["id", "request_key"]), manifest.scanned.ids_digest, history)


def settle_leaving(job: Job, manifest: ResolvedManifest, store: Store, *, yes: bool) -> Leaving:
    """Return the rows that leave with a run, when they are few enough or the caller knows.

    Which rows the run makes does not matter: `--only` and `--limit` leave the others where they are.

    Raises:
        UserError: When more of them leave than `limits.leaving_fraction`.
    """
    leaving = rows_leaving(manifest, store, lambda: Campaign(store).history(unreadable=[]))
    bound = job.limits.leaving_fraction
    if leaving.fraction > bound and not yes:
        raise UserError(
            f"{leaving}. That is {leaving.fraction:.0%}, over limits.leaving_fraction = {bound:g}. Is it the right "
            f"manifest ({job.manifest_path}) and the right output ({store.url})? Run again with --yes to let them leave"
        )
    return leaving
