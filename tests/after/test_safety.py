"""The safety stage with a real classifier: what it blocks, what it lets through, and what it is refused for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import asset_digests, prompts
from safetensors.torch import load_file, save_file
from support.toy_classifier import make_classifier

import sdbatch
from sdbatch.after import choose_stages, judge, load_judges, stages_digest
from sdbatch.errors import JobError, ModelError, ModelLoadFailed

# F frames, H and W pixels, C = 3 channels.

Run = Callable[..., list[dict[str, Any]]]
JobOf = Callable[..., dict[str, Any]]
LABELS = ["weapon", "gore"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture
def run(write_manifest: Callable[..., str], job_of: JobOf, tmp_path: Path) -> Run:
    """Render four pictures in this process into a campaign of a name; return their metadata."""

    def call(name: str, **changes: Any) -> list[dict[str, Any]]:
        output = str(tmp_path / name)
        sdbatch.run(job_of(write_manifest(prompts(4)), output, **changes), in_process=True)
        rows: list[dict[str, Any]] = sdbatch.metadata(output).to_pylist()
        return rows

    return call


def _safety(folder: Path, above: float, labels: list[str] = LABELS) -> dict[str, Any]:
    return {"safety": {"path": str(folder), "labels": labels, "above": above}}


def _stages(folder: Path, above: float, labels: list[str] = LABELS) -> Any:
    return choose_stages(_safety(folder, above, labels).items())


def _scores(rows: list[dict[str, Any]]) -> list[float]:
    return [stage["score"] for row in rows for stage in row["stages"] if stage["name"] == "safety"]


def test_a_picture_over_the_bound_is_blocked_and_the_others_keep_every_byte(
    run: Run, classifier: Path, tmp_path: Path
) -> None:
    plain = run("plain")
    scores = sorted(_scores(run("scored", after=[_safety(classifier, 0.999999)])))
    assert scores[-1] - scores[-2] > 1e-3, "the classifier tells these pictures apart"
    above = (scores[-1] + scores[-2]) / 2
    rows = run("judged", after=[_safety(classifier, above)])

    assert [row["stages"] for row in plain] == [
        [{"name": "quality", "verdict": "ok", "label": None, "score": None}]
    ] * 4
    assert {row["stages_digest"] for row in plain} == {None}
    (blocked,) = [row for row in rows if row["status"] == "blocked"]
    (verdict,) = blocked["stages"]
    assert verdict == {"name": "safety", "verdict": "blocked", "label": verdict["label"], "score": scores[-1]}
    assert verdict["label"] in LABELS
    assert (blocked["error_type"], blocked["error_retryable"], blocked["asset"]) == ("SafetyChecker", False, None)
    assert blocked["error_message"] == (
        f"safety: the score of '{verdict['label']}' is {scores[-1]:.3f}, over {above:g}"
    )
    passed = [row for row in rows if row["status"] == "ok"]
    assert [[stage["verdict"] for stage in row["stages"]] for row in passed] == [["ok", "ok"]] * 3
    digests, before = (asset_digests(str(tmp_path / name)) for name in ("judged", "plain"))
    assert len(digests) == 3
    assert digests.items() < before.items()


def test_what_was_blocked_is_tried_again_under_other_settings_alone(
    run: Run,
    classifier: Path,
    write_manifest: Callable[..., str],
    job_of: JobOf,
    tmp_path: Path,
) -> None:
    strict = {"after": [_safety(classifier, 0.0)], "limits": {"failed_fraction": 1.0}}
    assert {row["status"] for row in run("campaign", **strict)} == {"blocked"}

    def planned(**changes: Any) -> dict[str, int]:
        job = job_of(write_manifest(prompts(4)), str(tmp_path / "campaign"), **changes)
        return dict(sdbatch.plan(job).rows)

    moved = make_classifier(tmp_path / "moved")
    assert planned(**strict) == {"failed": 4}
    assert planned(after=[_safety(moved, 0.0)]) == {"failed": 4}
    assert planned(after=[_safety(classifier, 0.999999)]) == {"retry": 4}
    assert planned() == {"retry": 4}
    rows = run("campaign", after=[_safety(classifier, 0.999999)])
    assert {row["status"] for row in rows} == {"ok"}
    assert planned(**strict) == {"reused": 4}, "what passed is not judged again"


def test_of_a_clip_the_worst_frame_counts(classifier: Path) -> None:
    class Clip:
        is_finite = True

        def __init__(self, frames_FHWC: Any) -> None:
            self.frames_FHWC = frames_FHWC

    frames_FHWC = np.random.default_rng(3).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    frames_FHWC[1] = 0
    judges = load_judges(_stages(classifier, 0.5), "device", "cpu")
    (whole,), *single = judge(judges, [Clip(frames_FHWC), *(Clip(frame_HWC[None]) for frame_HWC in frames_FHWC)])
    scores = [verdict.score for (verdict,) in single]

    assert len({round(score or 0.0, 4) for score in scores}) > 1, "the frames' scores differ"
    assert whole.score == pytest.approx(max(score or 0.0 for score in scores), abs=1e-6)


def test_a_classifier_that_does_not_load_ends_the_model_and_blames_no_row(
    classifier: Path, write_manifest: Callable[..., str], job_of: JobOf, tmp_path: Path
) -> None:
    folder = make_classifier(tmp_path / "torn")
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelLoadFailed, match=rf"after\.safety: {folder}: .*"):
        load_judges(_stages(folder, 0.5), "device", "cpu")

    job = job_of(write_manifest(prompts(2)), after=[_safety(folder, 0.5)])
    result = sdbatch.run(job, in_process=True)
    assert result.exit_code != 0
    assert sdbatch.metadata(job["output"]).num_rows == 0
    assert not Path(job["output"], "assets").exists() or not any(Path(job["output"], "assets").iterdir())


def test_a_classifier_without_its_head_is_not_given_a_random_one(classifier: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(classifier, tmp_path / "headless"))
    weights = load_file(folder / "model.safetensors")
    save_file(
        {key: value for key, value in weights.items() if not key.startswith("classifier.")},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )

    with pytest.raises(ModelLoadFailed, match=r"headless: ModelError: lacks 2 weights, such as classifier\.bias"):
        load_judges(_stages(folder, 0.5), "device", "cpu")


def test_a_label_that_the_classifier_lacks_is_refused_before_anything_runs(
    classifier: Path, write_manifest: Callable[..., str], job_of: JobOf, tmp_path: Path
) -> None:
    job = job_of(write_manifest(prompts(1)), after=[_safety(classifier, 0.5, ["wapon"])])

    for verb in (sdbatch.check, sdbatch.plan, lambda job: sdbatch.run(job, in_process=True)):
        with pytest.raises(
            ModelError, match=r"after\.safety\.labels: .* knows no 'wapon'; it knows plain, weapon, gore"
        ):
            verb(job)
    assert not (tmp_path / "campaign" / "assets").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"no config\.json there"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), r"no model\.safetensors"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), r"no preprocessor_config\.json"),
        (lambda folder: (folder / "config.json").write_text('{"auto_map": {}, "id2label": {"0": "a"}}'), "auto_map"),
        (lambda folder: (folder / "config.json").write_text("{}"), "no id2label"),
    ],
)
def test_a_folder_that_is_no_classifier_is_refused_by_name(
    spoil: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    folder = make_classifier(tmp_path / "classifier")
    spoil(folder)

    with pytest.raises(ModelError, match=rf"after\.safety: {folder}: .*{message}|after\.safety: {folder}: {message}"):
        _stages(folder, 0.5)[0].settings.check()


def test_a_bucket_is_no_local_folder() -> None:
    with pytest.raises((ModelError, JobError), match="s3://bucket/classifier is not a local folder"):
        choose_stages(_safety(Path("x"), 0.5).items())[0].settings.model_copy(
            update={"path": "s3://bucket/classifier"}
        ).check()


def test_the_digest_stands_for_weights_labels_and_bound_and_not_for_the_place(classifier: Path, tmp_path: Path) -> None:
    digest = stages_digest(_stages(classifier, 0.5))
    copy = make_classifier(tmp_path / "copy")

    assert digest == stages_digest(_stages(copy, 0.5))
    others = [
        stages_digest(_stages(classifier, 0.4)),
        stages_digest(_stages(classifier, 0.5, ["gore"])),
        stages_digest(_stages(make_classifier(tmp_path / "other", seed=1), 0.5)),
    ]
    assert len({digest, *others}) == 4


def test_a_check_of_the_stage_needs_no_torch(classifier: Path) -> None:
    values = json.dumps(_safety(classifier, 0.5)["safety"])
    script = (
        "import sys, json; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from sdbatch.after import check_stages, choose_stages\n"
        f"check_stages(choose_stages([('safety', json.loads({values!r}))]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_without_the_variables_of_a_worker_nothing_asks_a_hub(
    classifier: Path, write_manifest: Callable[..., str], job_of: JobOf
) -> None:
    """A run in the caller's process sets no HF_HUB_OFFLINE; that folders are local is said in every call."""
    job = job_of(write_manifest(prompts(1)), after=[_safety(classifier, 0.999999)])
    script = (
        "import json, socket, sys, sdbatch\n"
        "asked = []\n"
        "def refuse(*arguments, **_): asked.append(arguments); raise OSError('no network here')\n"
        "socket.getaddrinfo = refuse\n"
        "result = sdbatch.run(json.loads(sys.argv[1]), in_process=True)\n"
        "assert result.counts['rows_ok'] == 1, result\n"
        "assert not asked, asked\n"
        "from huggingface_hub import HfApi\n"
        "try: HfApi().model_info('a/b')\n"
        "except Exception: pass\n"
        "assert asked, 'a call of the hub would not have shown'\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    command = [sys.executable, "-c", script, json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)

    assert done.returncode == 0, done.stderr
