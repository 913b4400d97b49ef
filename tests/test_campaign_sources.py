"""What a source says of itself decides the asset, and what could not be honoured stands in its row."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.icc import P3, cmyk_profile, rgb_profile

import sdbatch


def _png(folder: Path, name: str, colour: tuple[int, int, int], profile: bytes | None = None) -> str:
    buffer = io.BytesIO()
    image = Image.new("RGB", (64, 64), colour)
    image.paste((20, 20, 20), (0, 40, 64, 64))
    image.save(buffer, "PNG", icc_profile=profile)
    (folder / name).write_bytes(buffer.getvalue())
    return str(folder / name)


@pytest.mark.fault("F1", "a Display P3 picture as a source", "the asset of its sRGB twin, not of its raw pixels")
@pytest.mark.fault("F1", "a picture whose profile is another mode's", "the asset of its raw pixels, a note in the row")
@pytest.mark.fault("F36", "a JPEG without its last two bytes, as a source", "an asset, and a note in the row")
@pytest.mark.fault("F36", "a name that is NFC in the table and NFD on disk", "the file is found")
def test_assets_follow_what_sources_say_of_themselves(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    folder = tmp_path / unicodedata.normalize("NFD", "Größe")
    folder.mkdir()
    _png(folder, unicodedata.normalize("NFD", "café.png"), (213, 115, 42))
    composed = tmp_path / "Größe" / "café.png"
    assert not composed.exists()
    Image.new("RGB", (64, 64), (213, 115, 42)).save(folder / "whole.jpg", quality=95)
    (folder / "short.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:-2])
    sources = {
        "p3": _png(folder, "p3.png", (200, 120, 60), rgb_profile(P3, None)),
        "srgb": str(composed),
        "raw": _png(folder, "raw.png", (200, 120, 60)),
        "wrong": _png(folder, "wrong.png", (200, 120, 60), cmyk_profile()),
        "whole": str(folder / "whole.jpg"),
        "short": str(folder / "short.jpg"),
    }
    rows = [{"id": name, "task": "image-to-image", "images": [path], "seed": 1} for name, path in sources.items()]
    shared = {"prompt": "beach at sunset", "strength": 0.5, "num_inference_steps": 2}
    job = job_of(
        write_manifest([{**row, **shared} for row in rows]),
        sources={"allow": [str(tmp_path / "Größe")]},
    )
    assert sdbatch.check(job).sources_read == 6
    sdbatch.run(job, in_process=True)
    made = {row["id"]: row for row in sdbatch.metadata(job["output"]).to_pylist()}
    pixels = {name: Image.open(Path(job["output"], row["asset"])).tobytes() for name, row in made.items()}

    assert {row["status"] for row in made.values()} == {"ok"}
    assert pixels["p3"] == pixels["srgb"] != pixels["raw"]
    assert pixels["wrong"] == pixels["raw"]
    assert pixels["short"] == pixels["whole"]
    notes = {name: row["source_notes"] for name, row in made.items() if row["source_notes"]}
    mismatch = "its colour profile is for CMYK and the picture is RGB, so that its values were taken as sRGB"
    assert notes == {
        "wrong": [f"{sources['wrong']}: {mismatch}"],
        "short": [f"{sources['short']}: the file lacks its last bytes"],
    }
