"""Commands and workers never import pandas, as Arrow does where it is installed; a caller of the library keeps it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import prompts

IMPORTED = """
import os
open(os.path.join(os.environ["IMPORTED"], str(os.getpid())), "w").close()
raise ImportError("this pandas only tells that it was looked for")
"""

PLANNED_BY_A_CALLER = "import json, sys, sdbatch; sdbatch.plan(json.loads(sys.argv[1]))"

WANTED_LATER = """
import pyarrow as pa
from sdbatch.without_pandas import keep_pandas_out
keep_pandas_out()
pa.array([1, None])
try:
    import pandas
except ImportError as error:
    print(error)
"""


@pytest.fixture
def looked_for(tmp_path: Path) -> Callable[..., int]:
    """Run Python where a pandas lies that notes who imports it; return how many processes did."""
    library, imported = tmp_path / "library", tmp_path / "imported"
    (library / "pandas").mkdir(parents=True)
    (library / "pandas" / "__init__.py").write_text(IMPORTED)
    imported.mkdir()

    def run(arguments: Sequence[str]) -> int:
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "IMPORTED": str(imported), "PYTHONPATH": os.pathsep.join([str(library), *sys.path])},
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        return len(list(imported.iterdir()))

    return run


def test_a_command_does_not_import_pandas(
    tmp_path: Path,
    looked_for: Callable[..., int],
    write_manifest: Callable[..., str],
    job_of: Callable[..., dict[str, Any]],
) -> None:
    (tmp_path / "job.yaml").write_text(json.dumps(job_of(write_manifest(prompts(3)))))

    assert looked_for(["-m", "sdbatch", "plan", "job.yaml"]) == 0


@pytest.mark.ray
def test_neither_does_a_worker(
    tmp_path: Path,
    looked_for: Callable[..., int],
    write_manifest: Callable[..., str],
    job_of: Callable[..., dict[str, Any]],
) -> None:
    job = job_of(write_manifest(prompts(3)), output=str(tmp_path / "campaign"), workers={"count": 1})
    (tmp_path / "job.yaml").write_text(json.dumps(job))

    assert looked_for(["-m", "sdbatch", "run", "job.yaml"]) == 0
    assert len(list((tmp_path / "campaign" / "assets").iterdir())) == 3


def test_a_caller_of_the_library_has_pandas_as_before(
    looked_for: Callable[..., int], write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    assert looked_for(["-c", PLANNED_BY_A_CALLER, json.dumps(job_of(write_manifest(prompts(3))))]) == 1


def test_who_imports_pandas_later_finds_it(looked_for: Callable[..., int]) -> None:
    assert looked_for(["-c", WANTED_LATER]) == 1
