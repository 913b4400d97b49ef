"""The scripts of `examples/` are short, and do what their first line says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.doc_blocks import ROOT

import sdbatch

SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
LINES_MAX = 40


def _run(name: str, *arguments: str | Path) -> str:
    command = [sys.executable, str(ROOT / f"examples/{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _rows(folder: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = sdbatch.metadata(str(folder / "campaign")).to_pylist()
    return rows


@pytest.mark.parametrize("name", ["control", "deliver", "review"])
def test_a_script_that_is_given_too_little_says_what_it_takes(name: str) -> None:
    command = [sys.executable, str(ROOT / f"examples/{name}.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert f"python examples/{name}.py" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_short_and_told_in_the_readme(script: Path) -> None:
    text = script.read_text(encoding="utf-8")

    assert len(text.splitlines()) < LINES_MAX
    assert f"python examples/{script.name}" in (ast.get_docstring(ast.parse(text)) or "")
    assert script.name in (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")


@pytest.mark.long
def test_pictures_are_made_judged_replaced_and_delivered(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    assert "done 3 rows" in _run("text_to_image", folder)
    assert len(_rows(folder)) == 6
    first = {(row["id"], row["n"]) for row in _rows(folder)}

    said = _run("review", folder)
    after = {(row["id"], row["n"]) for row in _rows(folder)}
    assert "made in their place" in said
    assert {row["verdict"] for row in _rows(folder)} == {"approved", None}, "the bound on brightness tells them apart"
    assert after != first
    assert len(after) == 6

    said = _run("deliver", folder / "campaign", tmp_path / "shop")
    assert said.startswith("0 ")
    assert said.rstrip().endswith("True")
    tiles = list((tmp_path / "shop/tile").glob("*.webp"))
    assert len(tiles) == 6
    assert {Image.open(tile).size for tile in tiles} == {(200, 200)}


@pytest.mark.long
def test_edits_paint_and_keep(tmp_path: Path) -> None:
    assert "3 rows" in _run("image_to_image", tmp_path / "edits")
    assert len({row["sha256"] for row in _rows(tmp_path / "edits")}) == 3

    assert "1 rows" in _run("inpaint", tmp_path / "inpaint")
    (row,) = _rows(tmp_path / "inpaint")
    made = sdbatch.open_asset(str(tmp_path / "inpaint/campaign"), row)
    source = Image.open(tmp_path / "inpaint/beach.png").resize(made.size)
    top, bottom = ((0, 0, 64, 24), (0, 40, 64, 64))
    assert _apart(made.crop(top), source.crop(top)) > 2 * _apart(made.crop(bottom), source.crop(bottom))


def _apart(one: Image.Image, two: Image.Image) -> float:
    """Return how far two pictures are apart in the mean, of 255."""
    from PIL import ImageChops, ImageStat

    return sum(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), two.convert("RGB"))).mean) / 3


@pytest.mark.long
def test_clips_have_their_frames(tmp_path: Path) -> None:
    assert "3 rows" in _run("clip", tmp_path)
    assert {(row["id"], row["num_frames"]) for row in _rows(tmp_path)} == {("pan", 17), ("begins", 17), ("passes", 17)}


@pytest.mark.long
def test_edges_control(tmp_path: Path) -> None:
    from support.toy_models import make_tiny_sdxl, make_tiny_xl_controlnet

    make_tiny_sdxl(tmp_path / "sdxl")
    make_tiny_xl_controlnet(tmp_path / "edges")
    assert "3 rows" in _run("control", tmp_path / "sdxl", tmp_path / "edges", tmp_path / "made")
    assert len({row["sha256"] for row in _rows(tmp_path / "made")}) == 3
