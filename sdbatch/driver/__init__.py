"""The driver puts the rooms together: one file for each long verb. Only the worker does so too.

    Job --> rows/ --> ResolvedManifest --> one_run/ --> pending requests --> run --> commits, metadata, gallery

`predicted/` is work before it is done, for `forecast` and budgets; `delivery/` is what `deliver` is made of.

Nothing is written before every row was checked. The driver holds no truth: all of it is in the campaign.
"""

from __future__ import annotations

from sdbatch.driver.compact import write_metadata
from sdbatch.driver.forecast import PlanReport, forecast
from sdbatch.driver.gallery import write_gallery
from sdbatch.driver.one_run.records import RunResult
from sdbatch.driver.one_run.select import check_selection, classify, requests_of
from sdbatch.driver.picking import Selection, picked_rows
from sdbatch.driver.rows.scan import COUNTED, ResolvedManifest, Scanned, scan
from sdbatch.driver.run import run_job

__all__ = [
    "COUNTED",
    "PlanReport",
    "ResolvedManifest",
    "RunResult",
    "Scanned",
    "Selection",
    "check_selection",
    "classify",
    "forecast",
    "picked_rows",
    "requests_of",
    "run_job",
    "scan",
    "write_gallery",
    "write_metadata",
]
