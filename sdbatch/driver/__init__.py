"""The driver: manifest, plan, dispatch, commit and report put together. The other place is the worker.

    Job --> scan --> Spool (every row, resolved) --> select --> pending requests --> run --> commits, metadata, gallery

Nothing is written before every row was checked. The driver holds no truth: all of it is in the campaign.
"""

from __future__ import annotations

from sdbatch.driver.run import RunResult, run_job, write_gallery, write_metadata
from sdbatch.driver.scan import COUNTED, Scanned, Spool, scan
from sdbatch.driver.select import Selection, check_selection, requests_of, sort_out

__all__ = [
    "COUNTED",
    "RunResult",
    "Scanned",
    "Selection",
    "Spool",
    "check_selection",
    "requests_of",
    "run_job",
    "scan",
    "sort_out",
    "write_gallery",
    "write_metadata",
]
