"""`--set`: a key that takes text takes it as it stands; and what a job's YAML may not hold."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sdbatch.errors import JobError
from sdbatch.job import Job, parse_job, read_job


def _job(*overrides: str, **changes: Any) -> Job:
    values = {"manifest": "m", "output": "o", "models": {"a": {"path": "p"}}, **changes}
    return parse_job(values, overrides)


TEXTS = [
    "s3://camp/sale #1/x",
    "a: b",
    "1e3",
    "12:30",
    "yes",
    "[a, b]",
    "'quoted'",
    "2026-01-01",
    "*alias",
    "&anchor x",
    "!tag x",
    "%y",
    "@at",
    "a = b",
    "",
    "  blanks  ",
    "tab\tin it",
    "{brace",
    "- dash",
    "ein Fuchs, rot \u2014 'schnell'",
]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, marks=pytest.mark.fault("F14", f"--set with the text {text!r}", "as it stands"))
        for text in TEXTS
    ],
)
def test_a_text_is_taken_as_it_stands(text: str) -> None:
    assert _job(f"defaults.prompt={text}").defaults.prompt == text
    if text:
        assert _job(f"output={text}").output == text
        assert _job(f"models.a.path={text}").models["a"].path == text
        assert _job(f"manifest={text}").manifest == text


@pytest.mark.fault("F14", "--set models.a.controlnet=s3://b/c #1", "the path as it stands; {path: ...} is a mapping")
def test_a_folder_may_be_its_path_or_a_mapping() -> None:
    path, mapping = (
        _job(f"models.a.controlnet={text}").models["a"].controlnet for text in ("s3://b/c #1", "{path: s3://b/c}")
    )

    assert path is not None
    assert mapping is not None
    assert (path.path, mapping.path) == ("s3://b/c #1", "s3://b/c")
    assert _job("models.a.controlnet=null").models["a"].controlnet is None


def test_other_values_are_yaml_as_before() -> None:
    storage = {"s3://b.c/": {"region": "x"}}
    job = _job(
        "seed=3",
        "workers.count=auto",
        "models.a.batch_size=2",
        "determinism=exact",
        "sources.allow=[s3://a/, b]",
        "models.a.defaults.height=64",
        "defaults.negative_prompt=null",
        "storage.s3://b.c/.profile=me #1",
        "models.a.compile=true",
        storage=storage,
    )

    assert (job.seed, job.workers.count, job.models["a"].batch_size) == (3, "auto", 2)
    assert (job.determinism, job.sources.allow, job.models["a"].defaults.height) == ("exact", ["s3://a/", "b"], 64)
    assert job.defaults.negative_prompt is None
    assert job.models["a"].compile is True
    assert job.storage["s3://b.c/"].profile == "me #1"
    with pytest.raises(JobError, match="output"):
        _job("output=")
    with pytest.raises(JobError, match="should be"):
        _job("workers.count=two")


NUMBERS = {
    "an integer to base 60": "seed: 1" + ":59" * 100_000,
    "a tagged one": "seed: !!int '1" + ":59" * 100_000 + "'",
    "a tagged float to base 60": "seed: !!float '1" + ":59" * 100_000 + "'",
    "many digits": "seed: 1" + "0" * 800_000,
    "many hexadecimal digits": "seed: 0x1" + "0" * 800_000,
    "many binary digits": "seed: 0b1" + "0" * 800_000,
    "a float of many digits": "seed: 1." + "0" * 800_000,
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.fault("S7", f"YAML: {name}", "refused in a second")) for name in NUMBERS],
)
def test_a_number_without_bound_is_refused_at_once(tmp_path: Any, name: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("manifest: m\noutput: o\nmodels: {a: {path: p}}\n" + NUMBERS[name])
    started_s = time.process_time()
    with pytest.raises(JobError) as caught:
        read_job(file)

    assert time.process_time() - started_s < 3
    assert len(str(caught.value)) < 1000


def test_a_time_of_day_is_text(tmp_path: Any) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "manifest: 12:30\noutput: o\nmodels: {a: {path: p}}\nseed: 0x1F\nlimits: {failed_fraction: 5.0e-1}\n"
    )
    job = read_job(file)

    assert (job.manifest, job.seed, job.limits.failed_fraction) == ("12:30", 31, 0.5)


def test_a_wrong_value_is_shown_shortened() -> None:
    with pytest.raises(JobError) as caught:
        _job(determinism="x" * 100_000)

    assert len(str(caught.value)) < 1000
