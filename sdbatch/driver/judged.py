"""A campaign's rows with what people decided: campaign and review, put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.effective import EffectiveRows, with_own_assets
from sdbatch.campaign.files import each_of, files_by_run
from sdbatch.campaign.findings import file_finding
from sdbatch.campaign.history import History
from sdbatch.campaign.judged import Judged
from sdbatch.campaign.read import read_commit
from sdbatch.campaign.tombstones import read_tombstones
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


def committed_rows(store: Store, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the rows of every commit, those too that no manifest row wants any more, with what people decided.

    Args:
        store: The campaign.
        columns: Columns of `schema.COMMIT`; id, request_key, n, sha256 and asset among them.

    Raises:
        UserError: When a commit or a file of decisions is not readable.
    """
    judged, tombstones = Judged(read_verdicts(store)), read_tombstones(store)
    paths = [path for files in files_by_run(store) for path in files.commits]
    for table in each_of(lambda path: read_commit(store, path, columns), paths):
        yield tombstones.laid_over(judged.joined(with_own_assets(table)))


def verify_with_decisions(store: Store, sample: float | None = None) -> VerifyReport:
    """Compare what a campaign says with what it holds, decisions included; see `sdbatch.campaign.verify`."""
    report = Campaign(store).verify(sample, verdicts_of=lambda files: read_verdicts(store, files))
    detail = "has another content than its name says; restore it"
    altered = [file_finding("reviews", path, detail) for path in altered_files(store)]
    return replace(report, findings=(*report.findings, *altered))
