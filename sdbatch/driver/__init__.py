"""The driver puts the rooms together: one file for each long verb. Only the worker does so too.

    Job --> scan --> ResolvedManifest --> select --> pending requests --> run --> commits, metadata, gallery

Nothing is written before every row was checked. The driver holds no truth: all of it is in the campaign.
"""

from __future__ import annotations

from sdbatch.driver.compact import write_metadata
from sdbatch.driver.forecast import PlanReport, forecast
from sdbatch.driver.gallery import write_gallery
from sdbatch.driver.picking import Selection, picked_rows
from sdbatch.driver.records import RunResult
from sdbatch.driver.run import run_job
from sdbatch.driver.scan import COUNTED, ResolvedManifest, Scanned, scan
from sdbatch.driver.select import check_selection, classify, requests_of

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
