"""Stages after the model: what a job may name, and what the quality gate says of pixels."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import sdbatch
from sdbatch.after import STAGES, choose_stages, judge, load_judges, stages_digest
from sdbatch.campaign.schema import METADATA
from sdbatch.errors import ROW_FAILURES, JobError
from sdbatch.job import parse_job

# F frames, H and W pixels, C = 3 channels.

JOB = {"manifest": "m", "output": "o", "models": {"tiny": {"path": "builtin:tiny-random"}}}
NOISE_FHWC = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Pixels:
    frames_FHWC: NDArray[np.uint8]
    is_finite: bool = True


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_whole(name: str) -> None:
    stage = STAGES[name]
    folder = "sdbatch.after.device" if stage.where == "device" else "sdbatch.after"
    module = importlib.import_module(f"{folder}.{name}")

    assert module.STAGE is stage
    assert callable(module.load)
    assert hasattr(module.Settings, "check")
    assert set(stage.columns) <= set(METADATA.names)
    assert stage.blocks or stage.failure in ROW_FAILURES


def test_one_more_stage_is_one_more_file(tmp_path: Path) -> None:
    shutil.copytree(Path(sdbatch.__file__).parent, tmp_path / "sdbatch")
    (tmp_path / "sdbatch" / "after" / "darkness.py").write_text(DARKNESS)
    script = (
        "from sdbatch.after import STAGES, choose_stages, load_judges, judge;"
        "import numpy as np;"
        "from types import SimpleNamespace as Output;"
        "chosen = choose_stages([('darkness', {'below': 9.0})]);"
        "outputs = [Output(frames_FHWC=np.full((1, 8, 8, 3), value, np.uint8), is_finite=True) for value in (3, 99)];"
        "print(sorted(STAGES), [one.verdict for (one,) in judge(load_judges(chosen, 'cpu', 'cpu'), outputs)])"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment)

    assert done.stdout.strip() == "['darkness', 'quality', 'safety'] ['failed', 'ok']", done.stderr


DARKNESS = '''
"""Fails outputs that are nearly black."""

from sdbatch.after.stage import Stage, StageSettings, Verdict

STAGE = Stage(where="cpu", failure="BlankOutput")


class Settings(StageSettings):
    below: float


def load(settings, _device):
    def judge(outputs):
        dark = [output.frames_FHWC.mean() < settings.below for output in outputs]
        return [Verdict(name="darkness", verdict="failed" if one else "ok", message="is nearly black") for one in dark]

    return judge
'''


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, ["quality"]),
        ({"quality_gate": False}, []),
        ({"after": ["quality"]}, ["quality"]),
        ({"after": ["quality"], "quality_gate": False}, ["quality"]),
        ({"after": [{"safety": {"above": 0.5}}]}, ["quality", "safety"]),
        ({"after": [{"safety": {"above": 0.5}}, "quality"]}, ["safety", "quality"]),
    ],
)
def test_the_gate_of_older_jobs_is_a_stage_of_the_list(values: dict[str, Any], names: list[str]) -> None:
    assert [name for name, _ in parse_job({**JOB, **values}).stages] == names


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (["qualty"], "'qualty' is not a stage; did you mean quality"),
        (
            [{"safety": {"path": "p", "label": ["a"], "above": 0.5}}],
            "after.safety.label: unknown key; did you mean labels",
        ),
        ([{"safety": {"path": "p", "labels": ["a"]}}], "after.safety.above: missing"),
        ([{"safety": {"path": "p", "labels": ["a"], "above": 1.5}}], "after.safety.above: 1.5 should be less than 1"),
        ([{"quality": {"above": 1}}], "after.quality.above: unknown key; known are none"),
    ],
)
def test_what_a_job_says_wrong_is_named(after: list[Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        choose_stages(parse_job({**JOB, "after": after}).stages)


@pytest.mark.parametrize("after", [["quality", "quality"], [{"quality": {}, "safety": {}}]])
def test_a_list_that_is_not_one_of_stages_is_refused(after: list[Any]) -> None:
    with pytest.raises(JobError, match="after"):
        parse_job({**JOB, "after": after})


@pytest.mark.parametrize(
    ("pixels", "label", "message"),
    [
        (Pixels(NOISE_FHWC), None, ""),
        (Pixels(NOISE_FHWC[:1]), None, ""),
        (Pixels(NOISE_FHWC, is_finite=False), "not finite", "the model gave NaN or infinite values"),
        (Pixels(np.full((1, 8, 8, 3), 7, np.uint8)), "blank", "every value of the picture is 7"),
        (Pixels(NOISE_FHWC[[0, 0, 0]]), "still", "all 3 frames of the clip are the same"),
    ],
    ids=["clip", "picture", "NaN", "blank", "still"],
)
def test_the_gate_says_what_is_of_no_use(pixels: Pixels, label: str | None, message: str) -> None:
    judges = load_judges(choose_stages([("quality", {})]), "cpu", "cpu")
    ((verdict,),) = judge(judges, [pixels])

    assert (verdict.verdict, verdict.label, verdict.message) == ("failed" if label else "ok", label, message)


def test_only_stages_that_block_have_a_digest() -> None:
    assert stages_digest(choose_stages([("quality", {})])) is None
