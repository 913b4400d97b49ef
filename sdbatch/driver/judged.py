"""A campaign's effective rows with what people decided: campaign and review, put together."""

from __future__ import annotations

from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.effective import EffectiveRows
from sdbatch.campaign.history import History
from sdbatch.review.files import read_verdicts
from sdbatch.storage import Store


def effective_rows(store: Store, run: str | None = None, history: History | None = None) -> EffectiveRows:
    """Return the effective rows of a run's manifest, by default the newest's, as of now, or of a history.

    Raises:
        JobError: When the campaign has no run.
        UserError: When a file of decisions is not readable.
    """
    return Campaign(store).effective(read_verdicts(store), run, history)
