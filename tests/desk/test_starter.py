"""The folder that `sdbatch init` writes: it runs as it is."""

from __future__ import annotations

import fnmatch
import json
import runpy
import tomllib
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import sdbatch
from sdbatch.cli import app
from sdbatch.deliver.settings import delivery_schema
from sdbatch.desk.form import brief_schema
from sdbatch.errors import JobError

REPOSITORY = Path(__file__).parents[2]
STARTER = Path(sdbatch.__file__).parent / "desk" / "starter_files"
FORMATS = {
    "display-300x250": ((300, 250), "JPEG", 150_000),
    "story": ((270, 480), "JPEG", 40_000),
    "shop-tile": ((256, 256), "WEBP", 15_000),
}


@pytest.mark.slow
def test_a_newcomers_walk_ends_with_files_of_exact_sizes_under_their_caps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    written = run(app, ["init", "spring"])
    assert "next: cd spring && sdbatch run job.yaml && sdbatch deliver delivery.yaml" in written.stdout, written.output
    monkeypatch.chdir(tmp_path / "spring")
    rendered = run(app, ["run", "job.yaml", "--in-process", "--json", "--set", "defaults.num_inference_steps=3"])
    delivered = run(app, ["deliver", "delivery.yaml", "--json"])
    again = json.loads(run(app, ["deliver", "delivery.yaml", "--json"]).stdout)

    assert json.loads(rendered.stdout)["counts"]["rows_ok"] == 27, rendered.output
    assert json.loads(delivered.stdout)["warnings"] == [], delivered.output
    assert (json.loads(delivered.stdout)["made"], again["made"], again["current"]) == (27, 0, 27)
    names = set()
    for file in (path for suffix in ("jpg", "webp") for path in Path("out/delivered").rglob(f"*.{suffix}")):
        locale, name, rest = file.relative_to("out/delivered").parts
        size, kind, bytes_max = FORMATS[name]
        with Image.open(file) as picture:
            assert (picture.size, picture.format) == (size, kind)
            assert np.asarray(picture.convert("RGB")).std() > 10  # there is something to see
        assert file.stat().st_size <= bytes_max
        names.add((locale, name, rest.split(".")[0]))
    products = ("beach-sunset", "peaks-snow", "village-snow")
    assert names == {
        (locale, name, one) for locale in ("de-DE", "fr-FR", "ja-JP") for name in FORMATS for one in products
    }


def test_a_folder_with_anything_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "brief.yaml" in sdbatch.init(tmp_path / "empty")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")

    for name, fault in (("empty", "is not empty"), ("full", "is not empty"), ("file", "is no folder")):
        with pytest.raises(JobError, match=f"{name}: {fault}"):
            sdbatch.init(tmp_path / name)
    with pytest.raises(JobError, match="Not a directory"):
        sdbatch.init(tmp_path / "file" / "below")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["note.txt"]


def test_the_package_holds_every_file_of_it() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["sdbatch"]
    files = [path.relative_to(STARTER.parents[1]).as_posix() for path in STARTER.rglob("*") if path.is_file()]

    assert len(files) == 9
    assert [file for file in files if not any(fnmatch.fnmatch(file, pattern) for pattern in patterns)] == []
    assert sum(path.stat().st_size for path in STARTER.rglob("*")) < 40_000


def test_its_pictures_are_the_ones_that_are_drawn() -> None:
    drawn = runpy.run_path(str(REPOSITORY / "manifests" / "draw_starter.py"))["pictures"]()

    assert {path.name for path in (STARTER / "images").iterdir()} == set(drawn)
    for name, picture in drawn.items():
        assert np.array_equal(np.asarray(Image.open(STARTER / "images" / name)), picture)


def test_the_schemas_of_briefs_and_deliveries_are_the_exported_ones_and_fit_what_there_is() -> None:
    for name, schema, files in (
        ("delivery", delivery_schema(), [STARTER / "delivery.yaml", REPOSITORY / "jobs" / "deliveries" / "demo.yaml"]),
        ("brief", brief_schema(), [STARTER / "brief.yaml"]),
    ):
        assert json.loads((REPOSITORY / "jobs" / f"{name}.schema.json").read_text()) == schema
        for file in files:
            values = yaml.safe_load(file.read_text())
            jsonschema.validate(values, schema)
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate({**values, "formatss": []}, schema)


def test_the_command_that_comes_next_is_one_for_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "next: cd 'my spring' && " in CliRunner().invoke(app, ["init", "my spring"]).stdout
