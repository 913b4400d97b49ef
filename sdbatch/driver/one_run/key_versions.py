"""Whether a run would render finished outputs again because an older version of sdbatch made their keys.

    newest run's key version + classified rows --> settle_key_version() --> the version this run records, or UserError

Keys of two versions are never equal, so after an update every row would look changed, at the price of a campaign.
"""

from __future__ import annotations

from sdbatch.campaign.campaign import Campaign
from sdbatch.driver.one_run.select import classify, columns_for
from sdbatch.driver.picking import Selection
from sdbatch.driver.predicted.costs import forecaster_of
from sdbatch.driver.predicted.work import Work
from sdbatch.driver.rows.scan import COUNTED, ResolvedManifest
from sdbatch.errors import JobError, UserError
from sdbatch.job import Job
from sdbatch.recipe import KEY_VERSION
from sdbatch.report.progress import duration
from sdbatch.storage import Store


def settle_key_version(
    job: Job, manifest: ResolvedManifest, store: Store, selection: Selection, *, accept_new_keys: bool
) -> int:
    """Return the key version that a run records: this sdbatch's, or the older one while rows of it were not accepted.

    Args:
        job: The job.
        manifest: Its rows, resolved.
        store: The campaign.
        selection: Which rows the run makes.
        accept_new_keys: Whether outputs with keys of an older version may be rendered again.

    Raises:
        UserError: When outputs with keys of an older version would be rendered again; with their number and cost.
    """
    recorded = KEY_VERSION if accept_new_keys else recorded_key_version(store)
    if recorded >= KEY_VERSION:
        return KEY_VERSION
    done = Campaign(store).done()
    forecaster = forecaster_of(job, manifest.scanned.models, store)
    num_rows = 0
    work = Work()
    for part in classify(manifest.parts(columns_for(done, COUNTED)), done, selection):
        num_rows += part.counts["changed"]
        made = (len(own) if why == "changed" else 0 for why, own in zip(part.reasons, part.outputs, strict=True))
        work.add(part.rows, made)
    if not num_rows:
        return recorded
    predicted = [(forecaster.predict(model, shape, tflop), number) for model, shape, tflop, number in work]
    cost_s = sum(one.seconds * number for one, number in predicted)
    num_outputs = work.outputs.total()
    basis = "assumed rate" if any(one.basis == "assumed" for one, _ in predicted) else "measured"
    raise UserError(
        f"{num_outputs} of {manifest.scanned.num_outputs} outputs have keys of version {recorded}, made by an older "
        f"sdbatch; rendering them again ({num_rows} rows) would take about {duration(cost_s)} in the model "
        f"({basis}). Run again with --accept-new-keys to do so, or leave "
        "the campaign as it is: everything in it remains readable"
    )


def recorded_key_version(store: Store) -> int:
    """Return the key version that the newest run of a campaign recorded; version 1 recorded none."""
    try:
        return int(Campaign(store).status().get("key_version", 1))
    except JobError:  # no run there
        return KEY_VERSION
