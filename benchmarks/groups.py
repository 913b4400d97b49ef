"""Which groups of rows there are, and how one is run: in a process of its own, in a folder of its own."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from benchmarks.lab import Lab
from benchmarks.table import Row, to_json

GROUPS: Mapping[str, str] = {
    "speed": "benchmarks.speed:rows",
    "overhead": "benchmarks.overhead:rows",
    "campaign": "benchmarks.as_it_comes:rows",
    "documented": "benchmarks.documented:rows",
    "overlap": "benchmarks.overlap:rows",
    "scale": "benchmarks.scale:rows",
    "scale_runs": "benchmarks.scale_runs:rows",
    "scale_assets": "benchmarks.scale_assets:rows",
    "scale_large": "benchmarks.scale_large:rows",
    "level": "benchmarks.level:rows",
    "simulate": "benchmarks.simulate:rows",
}
"""Name of a group --> `module:function`, called as `function(lab) -> list[Row]`."""


def run_group(name: str, lab: Lab, file: Path) -> None:
    """Run a group in this process and write its rows to a file."""
    (lab.folder / "ray").mkdir()
    os.environ.update(
        SDBATCH_CACHE=str(lab.folder / "cache"), RAY_TMPDIR=str(lab.folder / "ray"), TMPDIR=str(lab.folder)
    )
    module, _, function = GROUPS[name].partition(":")
    rows: list[Row] = getattr(importlib.import_module(module), function)(lab)
    file.write_text(json.dumps({"rows": [to_json(one) for one in rows]}))
