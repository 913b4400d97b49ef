"""An asset comes out again from its metadata alone, and what is off is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import prompts
from PIL import Image

import sdbatch
from sdbatch.campaign import layout
from sdbatch.campaign.schema import COMMIT, from_parquet, table, to_parquet
from sdbatch.driver.reproduce import distance
from sdbatch.encode.asset import encode_asset, read_frames
from sdbatch.errors import ModelLoadFailed, UserError
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Encode
from sdbatch.storage import open_store


@dataclass(frozen=True)
class Made:
    """A campaign with a model folder of its own, a picture from text with two outputs, and one from a picture."""

    output: Path
    model: Path
    job: dict[str, Any]

    def asset(self, number: int) -> Path:
        return self.output / str(sdbatch.metadata(self.output).column("asset")[number])


@pytest.fixture
def made(tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]) -> Made:
    model = tmp_path / "model"
    make_tiny_random(model)
    source = tmp_path / "source.png"
    Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3).astype(np.uint8)).save(source)
    edit = {"id": "edit", "prompt": "p", "task": "image-to-image", "images": [str(source)], "strength": 1.0}
    rows = [{**prompts(1)[0], "num_outputs": 2}, edit]
    job = job_of(write_manifest(rows), models={"tiny": {"path": str(model), "batch_size": 4}})
    assert sdbatch.run(job, in_process=True).exit_code == 0
    return Made(tmp_path / "campaign", model, job)


def _files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_same_asset_comes_out_and_the_campaign_stays_as_it_is(made: Made) -> None:
    before = _files(made.output)
    second = sdbatch.reproduce(made.output, "row-0000", 1)
    edit = sdbatch.reproduce(made.output, "edit")

    assert second.asset == str(made.asset(1).relative_to(made.output))
    for found in (second, edit):
        assert (found.is_equal, found.is_same_file, found.is_as_committed) == (True, True, True)
        assert (found.difference_max, found.differing_share, found.psnr_db, found.changed) == (0, 0.0, None, {})
    assert _files(made.output) == before


def test_a_picture_that_was_changed_is_told_with_how_far(made: Made) -> None:
    asset = made.asset(0)
    values = np.asarray(Image.open(asset)).copy()
    values[0, 0, 0] += np.uint8(7 if values[0, 0, 0] < 200 else -7)
    Image.fromarray(values).save(asset)
    found = sdbatch.reproduce(made.output, "row-0000")

    assert (found.is_equal, found.is_same_file, found.is_as_committed) == (False, False, False)
    assert found.difference_max == 7
    assert found.differing_share == pytest.approx(1 / values.size)
    assert found.psnr_db == pytest.approx(10 * np.log10(255**2 * values.size / 49))
    assert sdbatch.reproduce(made.output, "row-0000", tolerance=7).is_equal


def test_a_library_that_changed_is_named(made: Made) -> None:
    store = open_store(str(made.output), {})
    (path,) = [e.path for e in store.list() if layout.is_commit(e.path) and b"edit" not in store.read(e.path)][:1]
    rows = from_parquet(store.read(path)).to_pylist()
    old = [
        {**row, "device": "cuda", "versions": json.dumps({**json.loads(row["versions"]), "torch": "1"})} for row in rows
    ]
    store.put(path, to_parquet(table(old, COMMIT)))
    changed = sdbatch.reproduce(made.output, str(rows[0]["id"])).changed

    assert changed.keys() == {"device", "torch"}
    assert (changed["torch"][0], changed["device"]) == ("1", ("cuda", "cpu"))


def test_a_model_that_moved_is_found_where_it_is_said_to_be_and_another_is_refused(made: Made, tmp_path: Path) -> None:
    moved = made.model.rename(tmp_path / "moved")
    with pytest.raises(ModelLoadFailed, match=r"no model_index\.json"):
        sdbatch.reproduce(made.output, "edit")
    assert sdbatch.reproduce(made.output, "edit", model_path=str(moved)).is_same_file
    config = moved / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.012", "0.013"))

    with pytest.raises(ModelLoadFailed, match="is not what was planned"):
        sdbatch.reproduce(made.output, "edit", model_path=str(moved))


def test_what_cannot_be_made_again_says_why(made: Made, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no asset of row-0000 with n 2 is committed; there are: 0, 1"):
        sdbatch.reproduce(made.output, "row-0000", 2)
    with pytest.raises(UserError, match=r"no asset of nobody .* there are: none"):
        sdbatch.reproduce(made.output, "nobody")
    (tmp_path / "source.png").unlink()
    found = sdbatch.reproduce(made.output, "edit")
    assert not found.is_equal
    assert (found.fault or "").startswith("SourceMissing: ")
    made.asset(0).unlink()
    with pytest.raises(UserError, match="is not in the store; `sdbatch redo`"):
        sdbatch.reproduce(made.output, "row-0000")


@pytest.mark.parametrize("suffix", ["png", "webp", "mp4", "webm"])
def test_every_medium_can_be_compared(suffix: str) -> None:
    frames_FHWC = np.linspace(0, 255, 4 * 32 * 48 * 3).reshape(4, 32, 48, 3).astype(np.uint8)
    is_clip = suffix in {"mp4", "webm"}
    options = Encode.model_validate({"video" if is_clip else "image": suffix, "lossless": True})
    shown_FHWC = frames_FHWC if is_clip else frames_FHWC[:1]
    values = {"request_key": "k", "n": 0, "recipe": "{}", "sound": None}
    encoded = encode_asset(shown_FHWC, options, fps=8.0 if is_clip else None, **values)  # type: ignore[arg-type]
    found = distance(shown_FHWC, read_frames(encoded.data, suffix, 32, 48))

    assert found["difference_max"] <= (24 if is_clip else 0)
    assert distance(shown_FHWC, shown_FHWC[:, :16])["fault"].startswith("frames, height, width are")


def test_rows_of_version_0_1_are_rendered_again_whatever_their_model_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(Path(__file__).parents[1] / "fixtures" / "campaign_0_1", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    revisions = {row["id"]: row["model_revision"] for row in sdbatch.metadata("campaign").to_pylist()}
    again = sdbatch.reproduce("campaign", "named")

    assert revisions["named"] == "v1"  # a name that can move, which a user's job may no longer say
    assert (again.is_equal, again.fault) == (True, None)
