"""An asset comes out again from its metadata alone, and what is off is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import prompts
from PIL import Image
from support.foreign_store import foreign_store
from typer.testing import CliRunner

import sdbatch
from sdbatch.campaign import layout
from sdbatch.campaign.schema import COMMIT, from_parquet, table, to_parquet
from sdbatch.canonical import canonical
from sdbatch.cli import app
from sdbatch.driver.reproduce import ReproduceReport, distance
from sdbatch.driver.trusted import checked_recipe
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

    def again(self, request_id: str, n: int = 0, **more: Any) -> ReproduceReport:
        """Render an asset again with the job that made it, which is the caller's own."""
        return sdbatch.reproduce(self.output, request_id, n, job=self.job, **more)

    def asset(self, number: int) -> Path:
        return self.output / str(sdbatch.metadata(self.output).column("asset")[number])


def _make(folder: Path) -> Made:
    """Run a job in a folder, with its model and source there too."""
    model = folder / "model"
    make_tiny_random(model)
    source = folder / "source.png"
    Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3).astype(np.uint8)).save(source)
    edit = {"id": "edit", "prompt": "p", "task": "image-to-image", "images": [str(source)], "strength": 1.0}
    rows: list[dict[str, Any]] = [{**prompts(1)[0], "num_outputs": 2}, edit]
    names = list(dict.fromkeys(name for row in rows for name in row))
    (folder / "manifest").mkdir()
    pq.write_table(
        pa.table({name: [row.get(name) for row in rows] for name in names}), folder / "manifest" / "a.parquet"
    )
    job = {
        "manifest": str(folder / "manifest"),
        "output": str(folder / "campaign"),
        "models": {"tiny": {"path": str(model), "batch_size": 4}},
        "defaults": {"task": "text-to-image", "num_inference_steps": 2, "guidance_scale": 3.0},
        "sources": {"allow": [str(folder)]},
        "determinism": "exact",
        "seed": 11,
    }
    assert sdbatch.run(job, in_process=True).exit_code == 0
    return Made(folder / "campaign", model, job)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return _make(tmp_path_factory.mktemp("original"))


@pytest.fixture
def made(original: Made, tmp_path: Path) -> Made:
    """A campaign of one's own; model and source are shared, and stay as they are."""
    output = shutil.copytree(original.output, tmp_path / "campaign")
    return Made(output, original.model, {**original.job, "output": str(output)})


def _files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_same_asset_comes_out_and_the_campaign_stays_as_it_is(made: Made) -> None:
    before = _files(made.output)
    second = made.again("row-0000", 1)
    edit = made.again("edit")

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
    found = made.again("row-0000")

    assert (found.is_equal, found.is_same_file, found.is_as_committed) == (False, False, False)
    assert found.difference_max == 7
    assert found.differing_share == pytest.approx(1 / values.size)
    assert found.psnr_db == pytest.approx(10 * np.log10(255**2 * values.size / 49))
    assert made.again("row-0000", tolerance=7).is_equal


def test_a_library_that_changed_is_named(made: Made) -> None:
    store = open_store(str(made.output), {})
    (path,) = [e.path for e in store.list() if layout.is_commit(e.path) and b"edit" not in store.read(e.path)][:1]
    rows = from_parquet(store.read(path)).to_pylist()
    old = [
        {**row, "device": "cuda", "versions": json.dumps({**json.loads(row["versions"]), "torch": "1"})} for row in rows
    ]
    store.put(path, to_parquet(table(old, COMMIT)))
    changed = made.again(str(rows[0]["id"])).changed

    assert changed.keys() == {"device", "torch"}
    assert (changed["torch"][0], changed["device"]) == ("1", ("cuda", "cpu"))


def test_a_model_that_moved_is_found_where_it_is_said_to_be_and_another_is_refused(made: Made, tmp_path: Path) -> None:
    moved = shutil.copytree(made.model, tmp_path / "moved")
    gone = {**made.job, "models": {"tiny": {"path": str(tmp_path / "gone"), "batch_size": 4}}}
    with pytest.raises(ModelLoadFailed, match=r"no model_index\.json"):
        sdbatch.reproduce(made.output, "edit", job=gone)
    assert made.again("edit", model_path=str(moved)).is_same_file
    config = moved / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.012", "0.013"))

    with pytest.raises(ModelLoadFailed, match="is not what was planned"):
        made.again("edit", model_path=str(moved))


def test_what_cannot_be_made_again_says_why(made: Made, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no asset of row-0000 with n 2 is committed; there are: 0, 1"):
        made.again("row-0000", 2)
    with pytest.raises(UserError, match=r"no asset of nobody is committed; `sdbatch metadata` lists what is"):
        made.again("nobody")
    _edit_rows(made.output, "edit", images=[str(tmp_path / "gone.png")])
    found = sdbatch.reproduce(made.output, "edit", job=made.job, allow=[str(tmp_path)])
    assert not found.is_equal
    assert (found.fault or "").startswith("SourceMissing: ")
    made.asset(0).unlink()
    with pytest.raises(UserError, match="is not in the store; `sdbatch redo`"):
        made.again("row-0000")


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


# --- a campaign that a stranger made --------------------------------------------------------------------------------


def _edit_rows(output: Path, request_id: str, **changes: Any) -> None:
    """Change a committed row, as a stranger may; its recipe stays the one of its key."""
    store = open_store(str(output), {})
    for path in [entry.path for entry in store.list() if layout.is_commit(entry.path)]:
        rows = from_parquet(store.read(path)).to_pylist()
        if any(row["id"] == request_id for row in rows):
            rows = [{**row, **(changes if row["id"] == request_id else {})} for row in rows]
            store.put(path, to_parquet(table(rows, COMMIT)))


def _edit_record(output: Path, **changes: Any) -> None:
    for file in output.glob("runs/*/run.json"):
        record = json.loads(file.read_bytes())
        record["job"] |= changes
        file.write_text(json.dumps(record))


@pytest.mark.fault("S3", "run.json with the endpoint_url of a stranger", "no request reaches it, no key is sent")
def test_an_address_in_a_campaign_is_sent_nothing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAVICTIMVICTIM0000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with foreign_store() as stranger:
        storage = {"s3://evil/": {"endpoint_url": stranger.endpoint, "region": "us-east-1"}}
        _edit_record(made.output, storage=storage, models={"tiny": {"path": "s3://evil/model"}})
        _edit_rows(made.output, "edit", images=["s3://evil/source.png"])
        for more in ({}, {"model_path": str(made.model)}, {"model_path": str(made.model), "allow": ["s3://mine/"]}):
            with pytest.raises(UserError, match=r"where the model tiny lies is not taken|is outside sources\.allow"):
                sdbatch.reproduce(made.output, "edit", **more)
        with pytest.raises(UserError, match=r"s3://evil/source\.png' is outside sources\.allow"):
            made.again("edit")
        assert made.again("row-0000").is_equal
        with foreign_store() as own:  # the caller may read a bucket of that name, at the address the caller says
            monkeypatch.setenv("AWS_ENDPOINT_URL", own.endpoint)
            found = sdbatch.reproduce(made.output, "edit", model_path=str(made.model), allow=["s3://evil/"])
            assert own.seen
            assert found.fault, "there is no such source at the caller's address"
        assert stranger.seen == []


@pytest.mark.fault("S3", "a crafted row whose source is a file of this machine", "refused: outside sources.allow")
@pytest.mark.parametrize("url", ["/etc/passwd", "file:///etc/passwd", "{tmp}/allowed/../secret", "{tmp}/allowed/link"])
def test_a_crafted_row_reads_no_file_of_this_machine(made: Made, tmp_path: Path, url: str) -> None:
    (tmp_path / "secret").write_text("not yours")
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "link").symlink_to(tmp_path / "secret")
    _edit_rows(made.output, "edit", images=[url.format(tmp=tmp_path)])
    job = {**made.job, "sources": {"allow": [str(tmp_path / "allowed")]}}

    with pytest.raises(UserError, match=r"is outside sources\.allow .*; --job JOB or --allow PREFIX says"):
        sdbatch.reproduce(made.output, "edit", job=job)
    with pytest.raises(UserError, match=r"is outside sources\.allow \(which is empty\)"):
        sdbatch.reproduce(made.output, "edit", model_path=str(made.model))


@pytest.mark.fault("S3", "run.json that names a folder as the model", "refused; --job or --model-path says it")
def test_a_model_path_in_a_campaign_is_not_followed(made: Made) -> None:
    with pytest.raises(UserError, match="say it with --job JOB or --model-path"):
        sdbatch.reproduce(made.output, "row-0000")
    assert sdbatch.reproduce(made.output, "row-0000", model_path=str(made.model)).is_equal


@pytest.mark.fault("S3", "crafted values in a row or its recipe", "one line that names them; nothing is rendered")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"asset": "../../etc/passwd"}, "is not its file"),
        ({"asset": "assets/other-00000000-0.png"}, "is not its file"),
        ({"batch_size": 2**30}, "batch_size is not in 1..256"),
        ({"height": None}, "is none that sdbatch wrote"),
        ({"width": 0}, "pixels"),
        ({"recipe": "{}"}, "is not the one its request key was made from"),
        ({"source_digests": []}, "1 sources and 0 digests"),
    ],
)
def test_a_crafted_value_ends_in_one_line(made: Made, changes: dict[str, Any], says: str) -> None:
    _edit_rows(made.output, "edit", **changes)
    with pytest.raises(UserError, match=says) as caught:
        made.again("edit")
    assert "\n" not in str(caught.value)


def test_a_recipe_without_bound_is_not_rendered(made: Made) -> None:
    row = sdbatch.metadata(made.output).to_pylist()[0]
    for changes, says in (
        ({"num_inference_steps": 10**9}, "num_inference_steps 1000000000"),
        ({"height": 8192, "width": 8192, "num_frames": 10**6}, "pixels"),
        ({"height": "tall"}, "is none that sdbatch wrote"),
        ({"batch_size": 10**6}, "batch_size"),
    ):
        recipe = canonical({**json.loads(row["recipe"]), **changes})
        with pytest.raises(UserError, match=says):
            checked_recipe({**row, "recipe": recipe}, "commit")


def test_the_command_line_takes_the_callers_job(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps(made.job))
    for arguments in ([str(file), "edit"], [str(made.output), "edit", "--job", str(file)]):
        assert CliRunner().invoke(app, ["reproduce", *arguments]).exit_code == 0
    allowed = ["--model-path", str(made.model), "--allow", str(made.model.parent)]
    assert CliRunner().invoke(app, ["reproduce", str(made.output), "edit", *allowed]).exit_code == 0
    refused = CliRunner().invoke(app, ["reproduce", str(made.output), "edit"])
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
