"""What `check` warns of: prompts that are cut, foreign syntax, missing sources; equal ones are told together."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import prompts
from typer.testing import CliRunner

import sdbatch
from sdbatch.checkpoints.builtins import builtin_folder
from sdbatch.cli import app
from sdbatch.errors import ManifestError, Problem, WarningsRefused, grouped
from sdbatch.families import FAMILIES
from sdbatch.families.scheduler_options import zero_snr_schedulers

Values = dict[str, Any]
LONG = " ".join(f"scene number {number}" for number in range(60))


@pytest.fixture
def job(write_manifest: Callable[..., str], job_of: Callable[..., Values]) -> Callable[..., Values]:
    """A job of the builtin model, whose text encoder reads 40 tokens."""

    def make(rows: list[Values], **changes: Any) -> Values:
        return job_of(write_manifest(rows), models={"m": {"path": "builtin:tiny-sd", "batch_size": 1}}, **changes)

    return make


@pytest.mark.fault("F19", "a prompt over the encoder's 40 tokens", "check names row, tokens and limit")
def test_a_prompt_that_is_cut_is_warned_of_with_its_tokens(job: Callable[..., Values]) -> None:
    checked = sdbatch.check(job([*prompts(3), {"id": "long", "prompt": LONG}]))

    (warning,) = checked.warnings
    assert (warning.id, warning.row, warning.column) == ("long", 3, "prompt")
    assert warning.message == "tokens are over the 40 that the text encoder reads; the end is left out"
    assert int(warning.value or 0) > 60 * 3


def test_the_count_is_the_one_that_the_worker_records(job: Callable[..., Values]) -> None:
    values = job([{"id": "long", "prompt": LONG}], defaults={"task": "text-to-image", "num_inference_steps": 1})
    (warning,) = sdbatch.check(values).warnings
    result = sdbatch.run(values, in_process=True)
    row = sdbatch.metadata(values["output"]).to_pylist()[0]

    assert row["prompt_truncated"]
    assert row["prompt_tokens"] == int(warning.value or 0)
    assert result.counts["rows_truncated"] == 1
    assert any("a prompt that is longer than the text encoder reads" in text for text in result.warnings)


@pytest.mark.fault("F19", "60 rows with the same foreign syntax", "one line with the number and the first ids")
def test_equal_warnings_are_one_line_and_complete_in_json(job: Callable[..., Values], tmp_path: Path) -> None:
    rows = [
        {"id": f"mug-{number:02d}", "prompt": f"a (red:1.{number % 9 + 1}) mug, number {number}"}
        for number in range(60)
    ]
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(job(rows)))
    shown = CliRunner().invoke(app, ["check", str(path)])
    told = json.loads(CliRunner().invoke(app, ["check", str(path), "--json"]).stdout)

    assert shown.exit_code == 0
    lines = [line for line in shown.output.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("warning: 60 rows: prompt is a weight of A1111 or ComfyUI; the model reads it as plain ")
    assert "(mug-00, mug-01, mug-02, mug-03, mug-04, ...; such as '(red:1.1)', '(red:1.2)'; the first is " in lines[0]
    assert "60 warnings" in shown.stdout
    assert told["num_warnings"] == len(told["warnings"]) == 60
    assert [(entry["id"], entry["row"]) for entry in told["warnings"]] == [(row["id"], n) for n, row in enumerate(rows)]


@pytest.mark.fault("F19", "check --strict on a manifest with warnings", "exit 2, every warning named")
def test_strict_takes_warnings_for_errors(job: Callable[..., Values], tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(job([{"id": "a", "prompt": "a {red|blue} mug"}])))
    done = CliRunner().invoke(app, ["check", str(path), "--strict"])

    assert done.exit_code == 2
    assert "1 warning(s) about the manifest, which --strict takes for errors" in done.output
    assert "(a): prompt '{red|blue}' is a choice of dynamic prompts" in done.output
    with pytest.raises(WarningsRefused):
        sdbatch.check(path, strict=True)
    assert sdbatch.check(job(prompts(2)), strict=True).num_warnings == 0


def test_words_for_no_value_are_warned_of(job: Callable[..., Values]) -> None:
    texts = ["nan", "None", "a nan bread", None, "NULL"]
    rows = [{"id": f"r{n}", "prompt": "p", "negative_prompt": text} for n, text in enumerate(texts)]
    warnings = sdbatch.check(job(rows)).warnings

    assert [(one.id, one.column, one.value) for one in warnings] == [
        ("r0", "negative_prompt", "'nan'"),
        ("r1", "negative_prompt", "'None'"),
        ("r4", "negative_prompt", "'NULL'"),
    ]
    assert {one.message.split(";")[0] for one in warnings} == {
        "is a word for no value, which the model reads as plain text"
    }


def test_lost_letters_are_warned_of(job: Callable[..., Values]) -> None:
    lost = ["ein H?tte am See", "??? ?????", "a caf� at night", "eine HÃ¼tte", "itâ€™s late", "ãƒ“ãƒ¼ãƒ"]
    whole = ["really? yes", "what?!", "Why??? a sign", "MAÇÃ, São, Ãngela, Â", "木のテーブル", "£ ½"]
    rows = [{"id": f"r{n}", "prompt": text} for n, text in enumerate([*lost, *whole])]
    warnings = sdbatch.check(job(rows)).warnings

    assert [one.id for one in warnings] == [f"r{n}" for n in range(len(lost))]
    assert [one.value for one in warnings][:2] == ["'ein H?tte am See'", "'??? ?????'"]
    assert {one.message for one in warnings} == {
        "has letters that were lost where the table was saved; save it as UTF-8 (in Excel: CSV UTF-8)"
    }


@pytest.mark.fault("F19", "a source that is not there", "check names row and file, the run goes on")
def test_missing_sources_are_warned_of(job: Callable[..., Values], tmp_path: Path) -> None:
    row = {"prompt": "p", "task": "image-to-image", "strength": 0.5, "images": str(tmp_path / "absent.png")}
    values = job([{"id": "a", **row}, {"id": "b", **row}])

    (line,) = sdbatch.check(values).lines()
    assert line.startswith("2 rows: images ")
    assert " is a source that is not there; the row will fail (a, b; the first is row 1 of " in line
    assert sdbatch.plan(values).warnings == [line]


def test_equal_errors_are_one_line(job: Callable[..., Values]) -> None:
    rows = [{"id": f"r{number}", "prompt": "p", "height": 66} for number in range(60)] + [
        {"id": "z", "prompt": "p", "width": 65}
    ]

    with pytest.raises(ManifestError) as refused:
        sdbatch.check(job(rows))
    lines = str(refused.value).splitlines()
    assert lines[0] == "61 problem(s) in the manifest:"
    assert lines[1].startswith("60 rows: height 66 is not a multiple of 8; the nearest is ")
    assert "(r0, r1, r2, r3, r4, ...; the first is row 1 of " in lines[1]
    assert lines[2].startswith("row 61 of ")
    assert len(lines) == 3
    assert len(refused.value.problems) == 61


def test_groups_are_bounded_and_say_how_many_are_left() -> None:
    problems = [Problem(shard="s", row=n, column="id", value=None, message=f"is wrong in way {n}") for n in range(70)]

    assert len(grouped(problems)) == 50
    assert str(ManifestError(problems)).splitlines()[-1] == "... and 20 more (--json gives up to 1000)"


def test_what_a_model_reads_is_not_warned_of_and_the_rest_of_a_prompt_is(
    write_manifest: Callable[..., str], job_of: Callable[..., Values]
) -> None:
    rows = [
        {"id": "read", "model": "reads", "prompt": "a (red:1.3) mug"},
        {"id": "other", "model": "reads", "prompt": "a (red:1.3) mug BREAK"},
        {"id": "plain", "model": "m", "prompt": "a (red:1.3) mug"},
        {"id": "long", "model": "reads", "prompt": LONG},
        {"id": "cut", "model": "m", "prompt": LONG},
    ]
    entry = {"path": "builtin:tiny-sd", "batch_size": 1}
    models = {"m": entry, "reads": {**entry, "prompt_weights": "compel", "long_prompt": "chunk"}}
    checked = sdbatch.check(job_of(write_manifest(rows), models=models))

    assert {(warning.id, warning.message.split(" ")[0]) for warning in checked.warnings} == {
        ("other", "begins"),
        ("plain", "is"),
        ("cut", "tokens"),
    }


@pytest.mark.parametrize("named", ["component", "folder"])
def test_a_scheduler_that_drops_the_models_zero_signal_is_warned_of(
    job: Callable[..., Values], tmp_path: Path, named: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(builtin_folder("tiny-sd"), folder)
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "rescale_betas_zero_snr": True}))
    rows = [
        {"id": "own", "prompt": 'a sign: "scheduler":"HeunDiscreteScheduler"'},
        {"id": "keeps", "prompt": "a house", "scheduler": "Euler a"},
        {"id": "drops", "prompt": "a house", "scheduler": "Heun"},
    ]
    values = job(rows)
    laid_over = {"scheduler": str(folder / "scheduler")}
    model = {"path": str(folder)} if named == "folder" else {"path": "builtin:tiny-sd", "components": laid_over}
    values["models"] = {"m": {**model, "batch_size": 1}}

    (warning,) = sdbatch.check(values).warnings
    assert (warning.id, warning.column, warning.value) == ("drops", "scheduler", "'HeunDiscreteScheduler'")
    assert "drops rescale_betas_zero_snr of the model's own scheduler" in warning.message
    assert "EulerDiscreteScheduler" in warning.message

    values["models"] = {"m": {"path": "builtin:tiny-sd", "batch_size": 1}}
    assert not sdbatch.check(values).warnings


def test_another_scheduler_is_refused_for_a_model_of_noise_levels_of_its_own(
    job: Callable[..., Values], tmp_path: Path
) -> None:
    folder = tmp_path / "playground"
    shutil.copytree(builtin_folder("tiny-sd"), folder)
    index = folder / "model_index.json"
    own = ["diffusers", "EDMDPMSolverMultistepScheduler"]
    index.write_text(json.dumps({**json.loads(index.read_text()), "scheduler": own}))
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": own[1], "sigma_max": 80.0}))
    values = job([{"id": "own", "prompt": "a"}, {"id": "said", "prompt": "a", "scheduler": ""}])
    values["models"] = {"m": {"path": str(folder), "batch_size": 1}}
    assert not sdbatch.check(values).warnings

    values = {**values, "manifest": job([{"id": "asked", "prompt": "a", "scheduler": "DPM++ 2M Karras"}])["manifest"]}
    with pytest.raises(ManifestError) as refused:
        sdbatch.check(values)
    assert "DPM++ 2M Karras" in str(refused.value)
    assert 'other noise levels than m was trained for; say "" for its own, EDMDPMSolverMultistepS' in str(refused.value)


@pytest.mark.parametrize(
    ("own", "config", "package", "remedy"),
    [
        ("EulerDiscreteScheduler", {"use_beta_sigmas": True}, "scipy", "pip install 'sdbatch[samplers]'"),
        ("LMSDiscreteScheduler", {}, "scipy", "pip install 'sdbatch[samplers]'"),
        ("DPMSolverSDEScheduler", {}, "torchsde", "pip install torchsde"),
    ],
)
def test_a_model_whose_own_scheduler_needs_a_package_that_is_not_there_is_refused(
    own: str,
    config: dict[str, Any],
    package: str,
    remedy: str,
    job: Callable[..., Values],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(builtin_folder("tiny-sd"), folder)
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "scheduler": ["diffusers", own]}))
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": own, **config}))
    find = importlib.util.find_spec
    here = {"scipy", "torchsde"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: name in here or find(name, *more))
    values = {**job([{"id": "a", "prompt": "a"}]), "models": {"m": {"path": str(folder), "batch_size": 1}}}
    assert not sdbatch.check(values).warnings

    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name in here else find(name, *more))
    with pytest.raises(ManifestError) as refused:
        sdbatch.check(values)
    assert f"m's own, {own}, needs {package}, not installed here: {remedy}" in str(refused.value)


def test_another_scheduler_is_refused_for_a_model_of_continuous_noise_levels(
    job: Callable[..., Values], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(builtin_folder("tiny-sd"), folder)
    index, file = folder / "model_index.json", folder / "scheduler" / "scheduler_config.json"
    own = "EulerDiscreteScheduler"
    index.write_text(json.dumps({**json.loads(index.read_text()), "scheduler": ["diffusers", own]}))
    levels = {"timestep_type": "continuous", "sigma_min": 0.002, "sigma_max": 120.0, "prediction_type": "v_prediction"}
    file.write_text(json.dumps({"_class_name": own, **levels}))

    def checked(scheduler: str) -> Any:
        values = job([{"id": "a", "prompt": "a", "scheduler": scheduler}])
        return sdbatch.check({**values, "models": {"m": {"path": str(folder), "batch_size": 1}}})

    assert not checked("").warnings
    assert not checked("Euler Karras").warnings
    with pytest.raises(ManifestError, match='other noise levels than m was trained for; say "" for its own, EulerDis'):
        checked("DPM++ 2M")


def test_only_families_that_predict_no_flow_have_schedulers_that_end_in_noise() -> None:
    ending = {name: zero_snr_schedulers(family.schedulers) for name, family in FAMILIES.items()}

    assert "EulerDiscreteScheduler" in ending["Stable Diffusion XL"]
    assert not any(ending[name] for name in ("Flux.1", "Stable Diffusion 3/3.5", "Wan 2.1 T2V"))
