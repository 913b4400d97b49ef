"""The table of columns: what is made of it is what the rooms use, and one more column is one row in one file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import sdbatch
from sdbatch.columns import COLUMNS, IN_RECIPE, MANIFEST, Column, Range
from sdbatch.recipe import Recipe

REPOSITORY = Path(__file__).parents[1]
NEW_ROW = """    _argument("guidance_rescale", _FLOAT, "drill", bound=Range(least=0, most=1), in_gallery=True),
"""
NEXT_ROW = """    Column(
        name="loras","""
STEPS = '"num_inference_steps": "num_inference_steps", '

SCRIPT = """
import json, sys
from types import SimpleNamespace
import sdbatch
from sdbatch.campaign.schema import METADATA
from sdbatch.campaign.write import request_columns
from sdbatch.checkpoints import describe
from sdbatch.families import FAMILIES
from sdbatch.job import parse_job
from docs.generator.tables import manifest_columns
from sdbatch.manifest.schema import COLUMNS
from sdbatch.plan.resolve import Resolver
from sdbatch.recipe import parse_recipe
from sdbatch.report.gallery_rows import SETTINGS
from sdbatch.types import Request

NAME = "guidance_rescale"
SIZE = {"height": 64, "width": 64}
MODEL = {"path": "/models/sdxl", "family": "Stable Diffusion XL", "revision": "c" * 40, "defaults": SIZE}
TASK = {"task": "text-to-image"}

def resolved(values, defaults=TASK):
    job = parse_job({"manifest": "m", "output": "o", "models": {"sdxl": MODEL}, "defaults": defaults, "seed": 1})
    resolver = Resolver(job, {"sdxl": describe("sdxl", job.models["sdxl"], {})}, lambda _: None, lambda url: url)
    columns = {name: [value] for name, value in {"id": "a", "prompt": "p", **values}.items()}
    rows, problems = resolver.resolve(columns, 1, {})
    return rows, [(problem.column, problem.message) for problem in problems]

plain, problems = resolved({})
told = {"key": plain.request_key[0].as_py(), "problems": problems, "in_manifest": NAME in COLUMNS}
if told["in_manifest"]:
    rows, _ = resolved({NAME: 0.5})
    recipe = parse_recipe(rows.recipe[0])
    from sdbatch.generate.tasks.calls import scalars
    told["recipe"] = json.loads(rows.recipe[0])[NAME]
    told["argument"] = scalars(FAMILIES["Stable Diffusion XL"].route_of(recipe), [SimpleNamespace(recipe=recipe)])[NAME]
    request = Request("a", rows.request_key[0].as_py(), rows.recipe[0], (0,), (), "sdxl", rows.batch_key[0], 1.0)
    told["metadata"] = [NAME in METADATA.names, request_columns(request, recipe, 0)[NAME]]
    told["gallery"] = NAME in SETTINGS
    told["documentation"] = f"| `{NAME}` | float | drill; in 0..1 |" in manifest_columns()
    older = sdbatch.metadata(sys.argv[1])
    told["older_are_null"] = older.num_rows > 0 and older.column(NAME).null_count == older.num_rows
    told["default"] = json.loads(resolved({}, {**TASK, NAME: 0.25})[0].recipe[0])[NAME]
    told["refused"] = resolved({NAME: 1.5})[1]
print(json.dumps(told))
"""


def _told(tree: Path) -> dict[str, Any]:
    """Run the script with the package of a tree."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(REPOSITORY / "tests/fixtures/campaign_0_1/campaign")],
        env={**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{REPOSITORY}"},
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _replace_once(folder: Path, old: str, new: str) -> Path:
    """Replace the first occurrence of a text in the one file of a folder that holds it; return that file."""
    (file,) = [path for path in folder.rglob("*.py") if old in path.read_text(encoding="utf-8")]
    file.write_text(file.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    return file


def test_one_more_column_is_one_row_and_its_use(tmp_path: Path) -> None:
    package = tmp_path / "sdbatch"
    shutil.copytree(Path(sdbatch.__file__).parent, package, ignore=shutil.ignore_patterns("*.safetensors", "*.pyc"))
    before = _told(tmp_path)
    touched = {
        _replace_once(package, NEXT_ROW, NEW_ROW + NEXT_ROW).name,
        _replace_once(package / "families", STEPS, f'{STEPS}"guidance_rescale": "guidance_rescale", ').parent.name,
    }
    after = _told(tmp_path)

    assert touched == {"columns.py", "families"}
    assert before == {"key": after["key"], "problems": [], "in_manifest": False}
    assert after == {
        "key": before["key"],
        "problems": [],
        "in_manifest": True,
        "recipe": 0.5,
        "argument": 0.5,
        "metadata": [True, 0.5],
        "gallery": True,
        "documentation": True,
        "older_are_null": True,
        "default": 0.25,
        "refused": [["guidance_rescale", "is not in 0..1"]],
    }


def test_no_column_stands_twice() -> None:
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)


def test_columns_that_the_recipe_reads_by_name_are_its_fields() -> None:
    others = {"key_version", "model", "num_frames_kept", "accelerators", "batch_size", "more"}
    others |= {"route", "route_version", "components"}

    of_options = {"scheduler_options", "prompt_weights", "long_prompt", "embeddings", "watermark"}
    """Columns that only some recipes hold: they stand in `more`."""

    assert {item.name for item in fields(Recipe)} - others == set(IN_RECIPE) - of_options


def test_every_column_of_manifest_and_metadata_says_what_it_means() -> None:
    shown = [column for column in COLUMNS if column.name in MANIFEST or column.in_metadata or column.is_joined]
    assert [column.name for column in shown if not column.meaning] == []


@pytest.mark.parametrize(
    ("bound", "value", "message"),
    [
        (Range(least=1, guard=9), 9, None),
        (Range(least=1, guard=9), 10, "is not in 1..9"),
        (Range(least=1, guard=9), 0, "is not in 1..9"),
        (Range(over=0, most=1), 0.0, "is not over 0 and at most 1"),
        (Range(over=0, most=1), 1.0, None),
        (Range(over=0), float("nan"), "is not over 0"),
        (Range(over=0), float("inf"), "is not over 0"),
        (Range(least=2), 1, "is not at least 2"),
        (("cover", "contain"), "crop", "is neither cover nor contain"),
        (("a", "b", "c"), "d", "is none of a, b, c"),
        (None, "anything", None),
    ],
)
def test_a_value_outside_a_bound_is_told_the_bound(bound: Any, value: Any, message: str | None) -> None:
    assert Column(name="c", type=pa.string(), bound=bound).problem(value) == message
