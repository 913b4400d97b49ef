"""A user's own watermark: on every frame, in key and metadata, allowed by a flag, and its faults told by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import sdbatch
from sdbatch.encode.asset import read_embedded
from sdbatch.encode.watermark import marked
from sdbatch.errors import JobError, UserError, WatermarkFailed

# F frames, H and W pixels, C = 3 channels.

MODULE = """
import numpy as np

def corner(image_HWC, *, request_key, n):
    image_HWC[:8, :8] = int(request_key[:2], 16), n, 255
    return image_HWC

def boom(image_HWC, *, request_key, n):
    raise ConnectionError("the key service is away")

def smaller(image_HWC, *, request_key, n):
    return image_HWC[:-1]

def floats(image_HWC, *, request_key, n):
    return image_HWC.astype(np.float32)

def nothing(image_HWC, *, request_key, n):
    pass

number = 7
"""
KEY = "ab" * 32


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "marks.py").write_text(MODULE)
    (tmp_path / "keyless.py").write_text('raise ConnectionError("the key service is away")\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("marks", None)


def _frames(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (number, 16, 24, 3), np.uint8)


@pytest.mark.usefixtures("marks")
def test_every_frame_of_a_clip_is_marked_and_the_one_handed_in_stays() -> None:
    frames_FHWC = _frames(3)
    before = frames_FHWC.copy()
    out_FHWC = marked(frames_FHWC, "marks:corner", request_key=KEY, n=2)

    assert (out_FHWC[:, :8, :8] == (0xAB, 2, 255)).all()
    assert (out_FHWC[:, 8:] == before[:, 8:]).all()
    assert (frames_FHWC == before).all()


@pytest.mark.usefixtures("marks")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("boom", "marks:boom raised ConnectionError: the key service is away"),
        ("smaller", r"marks:smaller returned an array of shape \(15, 24, 3\), not \(16, 24, 3\)"),
        ("floats", "marks:floats returned numbers of type float32, not uint8"),
        ("nothing", "marks:nothing returned NoneType, not a NumPy array"),
        ("number", "watermark.call: marks:number is of type int, no function"),
        ("absent", "watermark.call: marks:absent: .* has no attribute 'absent'"),
    ],
)
def test_what_is_no_picture_of_the_same_form_is_told_by_its_name(name: str, said: str) -> None:
    with pytest.raises(WatermarkFailed, match=said):
        marked(_frames(1), f"marks:{name}", request_key=KEY, n=0)


@pytest.mark.usefixtures("marks")
def test_a_module_that_cannot_be_imported_is_told_by_its_name() -> None:
    with pytest.raises(WatermarkFailed, match="keyless:mark: keyless raised ConnectionError: the key service is away"):
        marked(_frames(1), "keyless:mark", request_key=KEY, n=0)


@pytest.mark.usefixtures("marks")
def test_a_run_marks_its_pictures_when_it_is_allowed_to(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    rows = [{"id": "fox", "prompt": "a red fox", "height": 64, "width": 64, "num_outputs": 2}]
    plain = job_of(write_manifest(rows), str(tmp_path / "plain"))
    job = {**plain, "output": str(tmp_path / "campaign"), "watermark": {"call": "marks:corner", "version": "1"}}
    with pytest.raises(JobError, match="marks:corner is code; --allow-code lets a run call"):
        sdbatch.run(job, in_process=True)
    absent = {**job, "watermark": {"call": "marks:absent", "version": "1"}}
    with pytest.raises(JobError, match="has no attribute 'absent'"):
        sdbatch.run(absent, in_process=True, allow_code=True)
    assert not (tmp_path / "campaign").exists(), "nothing was started"

    sdbatch.run(plain, in_process=True)
    assert sdbatch.run(job, in_process=True, allow_code=True).exit_code == 0
    without, made = (sdbatch.metadata(one["output"]).to_pylist() for one in (plain, job))
    assert [row["watermark"] for row in (*without, *made)] == [None, None, "marks:corner 1", "marks:corner 1"]
    assert made[0]["request_key"] != without[0]["request_key"]
    for own, other in zip(made, without, strict=True):
        data = Path(job["output"], own["asset"]).read_bytes()
        embedded = read_embedded(data, "png") or {}
        assert embedded["recipe"]["watermark"] == "marks:corner 1"
        pixels, unmarked = (
            np.asarray(Image.open(Path(one["output"], row["asset"]))) for one, row in ((job, own), (plain, other))
        )
        assert (pixels[:8, :8] == (int(own["request_key"][:2], 16), own["n"], 255)).all()
        assert (pixels[8:] == unmarked[8:]).all()
    # Another version makes other assets; the same one makes nothing.
    again = sdbatch.run(job, in_process=True, allow_code=True)
    assert again.counts["model_calls"] == 0
    assert sdbatch.plan({**job, "watermark": {"call": "marks:corner", "version": "2"}}).changed == {"watermark": 1}
    with pytest.raises(UserError, match=r"bears the watermark of marks:corner 1, which is code"):
        sdbatch.reproduce(job["output"], "fox")

    # A mark that fails costs its rows, and says which function it was.
    failing = {**job, "output": str(tmp_path / "failing"), "watermark": {"call": "marks:smaller", "version": "1"}}
    run = sdbatch.run(failing, in_process=True, allow_code=True)
    assert (run.exit_code, run.failures) == (3, {"WatermarkFailed": 1})


@pytest.mark.parametrize(
    "settings",
    [{"call": "marks:corner"}, {"call": "marks", "version": "1"}, {"call": "marks:corner", "version": "a b"}],
)
def test_a_job_says_function_and_version(
    settings: dict[str, str], write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    with pytest.raises(JobError, match="watermark"):
        sdbatch.check(job_of(write_manifest([{"id": "a", "prompt": "b"}]), watermark=settings))
