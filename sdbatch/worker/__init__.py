"""The worker: what an executor runs on one GPU slot. One of the two places that put rooms together.

    process.py  a Worker with its model resident: start, run_unit, running
    unit.py     one unit from fetch to commit, two of them in flight
    outputs.py  outputs that are pending, rendered or failed
    sources.py  a request's sources become pixels, before the model
    render.py   recipes and pixels in, outputs out; knows no lease, store or campaign
    finish.py   an output is judged, encoded and put, behind the model
    record.py   metadata rows and receipts

It knows nothing of Ray.
"""

from __future__ import annotations

from sdbatch.worker.process import Worker, prepare_process

__all__ = ["Worker", "prepare_process"]
