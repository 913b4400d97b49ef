"""A campaign's effective rows with what people decided: campaign and review, put together."""

from __future__ import annotations

from dataclasses import replace

from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.effective import EffectiveRows
from sdbatch.campaign.findings import file_finding
from sdbatch.campaign.history import History
from sdbatch.campaign.verify import VerifyReport
from sdbatch.review.files import altered_files, read_verdicts
from sdbatch.storage import Store


def effective_rows(store: Store, run: str | None = None, history: History | None = None) -> EffectiveRows:
    """Return the effective rows of a run's manifest, by default the newest's, as of now, or of a history.

    Raises:
        JobError: When the campaign has no run.
        UserError: When a file of decisions is not readable.
    """
    return Campaign(store).effective(read_verdicts(store), run, history)


def verify_with_decisions(store: Store, sample: float | None = None) -> VerifyReport:
    """Compare what a campaign says with what it holds, decisions included; see `sdbatch.campaign.verify`."""
    report = Campaign(store).verify(sample, verdicts_of=lambda files: read_verdicts(store, files))
    detail = "has another content than its name says; restore it"
    altered = [file_finding("reviews", path, detail) for path in altered_files(store)]
    return replace(report, findings=(*report.findings, *altered))
