"""The ready jobs are right, told without the weights they name."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.revisions import PINNED
from support.weights import SDXL, sparse

import sdbatch
from sdbatch.errors import ManifestError
from sdbatch.job import Model

ROOT = Path(__file__).parent.parent
JOBS = sorted((ROOT / "jobs").glob("*.yaml"))
FAMILY_OF = {"flux": "Flux.1", "wan": "Wan 2.2 T2V A14B", "qwen-edit": "Qwen-Image-Edit"}
"""Families of entries that do not say it: their folder does."""

ROWS = {file.stem: file for file in (ROOT / "manifests").iterdir() if file.suffix in {".csv", ".jsonl"}}


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_a_ready_job_is_right_without_its_weights(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    loaded = sdbatch.load_job(job)
    manifest = loaded.manifest_path
    rows = ROWS.get(Path(manifest).name, ROWS["stills"])  # tonight's manifest lies in a bucket, and is of stills
    sdbatch.build_manifest(rows, tmp_path / "manifest")
    stated = [line for name, model in loaded.models.items() for line in _stated(name, model, tmp_path)]
    if job.stem == "qwen-edit" and importlib.util.find_spec("torchvision") is None:
        with pytest.raises(ManifestError, match=r"4 rows: task 'image-to-image' .* package torchvision"):
            sdbatch.check(job, [f"manifest={tmp_path / 'manifest'}", *stated])
        return
    report = sdbatch.check(job, [f"manifest={tmp_path / 'manifest'}", *stated])

    assert report.assets >= report.rows > 0


def _stated(name: str, model: Model, folder: Path) -> Iterator[str]:
    """Yield what makes an entry one whose files lie elsewhere, where it does not say so itself."""
    if model.path.endswith(".safetensors"):
        sparse(folder / f"{name}.safetensors", SDXL)
        yield f"models.{name}.path={folder / name}.safetensors"
    elif model.family is None and not model.path.startswith("builtin:"):
        yield f"models.{name}.family={model.like or FAMILY_OF[name]}"
        yield f"models.{name}.revision={PINNED}"
    if model.components:
        assert model.components.keys() <= {"vae", "transformer", "transformer_2"}
        yield f"models.{name}.components={{}}"


def test_the_table_of_cards_is_what_the_command_writes() -> None:
    from benchmarks.peaks import card_table

    page = (ROOT / "docs/models/cards.md").read_text(encoding="utf-8")
    table = card_table()
    assert table in page, "python -m benchmarks.peaks writes it"
    for file, most in (("stills-16gb", 16), ("flux-16gb", 16), ("flux-24gb", 24), ("wan-a14b", 24), ("qwen-edit", 24)):
        (line,) = (line for line in table.splitlines() if f"jobs/{file}.yaml" in line)
        assert int(line.split()[-3]) <= most, line


def test_every_manifest_beside_the_jobs_is_some_jobs() -> None:
    assert {Path(sdbatch.load_job(job).manifest_path).name for job in JOBS} >= ROWS.keys()
