"""The job file: what is taken, what is refused, and how it is said."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import sdbatch
from sdbatch.cli import app
from sdbatch.errors import JobError
from sdbatch.job import JOB_VERSION, Job, job_of_record, job_schema, parse_job, read_job
from sdbatch.job.read import JOB_BYTES_MAX

REPOSITORY = Path(__file__).parents[2]


def _values(**changes: Any) -> dict[str, Any]:
    return {
        "manifest": "shards/",
        "output": "out/spring",
        "models": {"tiny": {"path": "builtin:tiny-random", "batch_size": 4}},
        **changes,
    }


def _refusal(values: Any, *overrides: str) -> str:
    with pytest.raises(JobError) as caught:
        parse_job(values, overrides)
    return str(caught.value)


def _read(folder: Path, text: str, *overrides: str) -> Job:
    file = folder / "job.yaml"
    file.write_text(text, encoding="utf-8")
    return read_job(file, overrides)


def _model(**changes: Any) -> dict[str, Any]:
    return {"tiny": {"path": "builtin:tiny-random", **changes}}


# --- unknown keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "place", "near"),
    [
        ({"manfest": "x"}, "manfest", "manifest"),
        ({"defaults": {"guidance": 3}}, "defaults.guidance", "guidance_scale"),
        ({"defaults": {"steps": 20}}, "defaults.steps", "num_inference_steps"),
        ({"models": _model(dtipe="float16")}, "models.tiny.dtipe", "dtype"),
        ({"models": _model(defaults={"heigth": 64})}, "models.tiny.defaults.heigth", "height"),
        ({"storage": {"s3://assets/": {"endpoint": "http://x"}}}, "storage.s3://assets/.endpoint", "endpoint_url"),
        ({"workers": {"counts": 2}}, "workers.counts", "count"),
        ({"limits": {"atempts": 2}}, "limits.atempts", "attempts"),
        ({"encode": {"images": "png"}}, "encode.images", "image"),
    ],
)
def test_an_unknown_key_names_its_place_and_the_nearest_known_one(
    changes: dict[str, Any], place: str, near: str
) -> None:
    assert f"{place}: unknown key; did you mean {near}?" in _refusal(_values(**changes))


def test_an_unknown_key_like_no_other_is_told_the_known_ones() -> None:
    assert _refusal(_values(zzzzzz=1)).startswith(
        "job: zzzzzz: unknown key; known are version, manifest, output, models"
    )


def test_a_value_that_fits_none_of_several_types_is_one_fault() -> None:
    message = _refusal(_values(workers={"count": "two"}))

    assert message == "job: workers.count: 'two' should be a valid integer or 'two' should be 'auto'"


def test_a_text_that_is_too_short_is_told_in_one_sentence() -> None:
    with pytest.raises(JobError, match=r"output: '' should have at least 1 character$"):
        parse_job({"manifest": "m", "output": "", "models": {"a": {"path": "builtin:tiny-random"}}})


def test_defaults_name_a_model_of_the_job() -> None:
    assert "defaults.model: 'sdxl' is not one of" in _refusal(_values(defaults={"model": "sdxl"}))


def test_everything_that_is_wrong_is_told_at_once() -> None:
    values = {
        "output": "out",
        "models": _model(dtype="int8", pth="x"),
        "seed": -1,
        "encode": {"image": "gif", "quality": 101},
        "defaults": {"strength": 1.5, "num_outputs": 0},
        "sead": 2,
    }
    lines = _refusal(values).splitlines()
    places = sorted(line.split(": ")[1] for line in lines)
    assert places == [
        "defaults.num_outputs",
        "defaults.strength",
        "encode.image",
        "encode.quality",
        "manifest",
        "models.tiny.dtype",
        "models.tiny.pth",
        "sead",
        "seed",
    ]


@pytest.mark.parametrize(
    ("changes", "place", "value", "bound"),
    [
        ({"seed": -1}, "seed", "-1", "greater than or equal to 0"),
        ({"seed": 2**63}, "seed", str(2**63), str(2**63 - 1)),
        ({"limits": {"failed_fraction": 1.5}}, "limits.failed_fraction", "1.5", "less than or equal to 1"),
        ({"limits": {"attempts": 0}}, "limits.attempts", "0", "greater than or equal to 1"),
        ({"workers": {"count": 0}}, "workers.count", "0", "greater than or equal to 1"),
        ({"models": _model(batch_size=257)}, "models.tiny.batch_size", "257", "less than or equal to 256"),
        ({"encode": {"image": "gif"}}, "encode.image", "'gif'", "'png', 'jpg', 'webp' or 'avif'"),
        ({"determinism": "slow"}, "determinism", "'slow'", "'fast' or 'exact'"),
    ],
)
def test_a_wrong_value_is_told_with_its_place_and_bound(
    changes: dict[str, Any], place: str, value: str, bound: str
) -> None:
    message = _refusal(_values(**changes))
    assert f"{place}: {value} should be" in message
    assert bound in message


@pytest.mark.parametrize("values", [None, [], "manifest: x", 3])
def test_a_job_that_is_no_mapping_is_refused(values: Any) -> None:
    assert "a job is a mapping of keys" in _refusal(values)


def test_a_job_without_models_is_refused() -> None:
    assert "models: names no model; at least 1 is needed" in _refusal(_values(models={}))


@pytest.mark.parametrize("name", ["-tiny", "tiny/sd", "", "a" * 65])
def test_a_model_name_that_could_not_stand_in_a_path_is_refused(name: str) -> None:
    assert "models" in _refusal(_values(models={name: {"path": "builtin:tiny-random"}}))


# --- determinism ----------------------------------------------------------------------------------------------------


def test_exact_refuses_a_batch_size_that_is_found_by_trying() -> None:
    models = {"fixed": {"path": "a", "batch_size": 4}, "loose": {"path": "b"}}
    message = _refusal(_values(models=models, determinism="exact"))
    assert "determinism: exact needs an integer batch_size; models.loose.batch_size is auto" in message


def test_exact_takes_integer_batch_sizes() -> None:
    assert parse_job(_values(determinism="exact")).determinism == "exact"


def test_fast_takes_a_batch_size_that_is_found_by_trying() -> None:
    assert parse_job(_values(models=_model())).models["tiny"].batch_size == "auto"


# --- YAML -----------------------------------------------------------------------------------------------------------


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="line 3: key 'manifest' appears twice"):
        _read(tmp_path, "manifest: a\noutput: b\nmanifest: c\n")


def test_a_nested_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="line 4: key 'path' appears twice"):
        _read(tmp_path, "manifest: a\nmodels:\n  tiny: {path: x,\n    path: y}\n")


@pytest.mark.parametrize(
    "text",
    ["manifest: &m shards/\noutput: *m\n", "a: &a {path: x}\nmodels:\n  tiny:\n    <<: *a\n"],
    ids=["value", "merge"],
)
def test_an_alias_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(JobError, match="aliases are not taken"):
        _read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 0123\n", "line 1: '0123' is 83 to base 8; leave out the first 0"),
        ("defaults:\n  height: 0512\n", "line 2: '0512' is 330 to base 8"),
        ("limits: {attempts: 03}\n", "'03' is 3 to base 8"),
    ],
)
def test_a_number_to_base_8_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(JobError, match=re.escape(said)):
        _read(tmp_path, text)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("~/spring", "nothing is filled in for ~ here; write the folder out"),
        ("~ada/spring", "nothing is filled in for ~ada here"),
        ("$HOME/spring", "nothing is filled in for $HOME here"),
        ("s3://camp/${SEASON}", "nothing is filled in for ${SEASON} here"),
        ("out/${date}", "nothing is filled in for ${date} here"),
        ("out/{date}", "nothing is filled in for {date} here"),
        ("%TEMP%/spring", "nothing is filled in for %TEMP% here"),
        ("s3:/camp/spring", "two slashes stand behind a scheme, as in s3://bucket/spring"),
    ],
)
def test_an_output_that_nothing_fills_in_is_refused(output: str, said: str) -> None:
    assert f"job: output: {output!r}: {said}" in _refusal(_values(output=output))
    assert said in _refusal(_values(), f"output={output}")


@pytest.mark.parametrize("output", ["./~/spring", "out/a~b", "out/5$ off", "out/50% off", "file:///out", "C:/o"])
def test_an_output_may_hold_such_signs(output: str) -> None:
    assert parse_job(_values(output=output)).output == output


@pytest.mark.parametrize(
    "text",
    ["a: [1, 2", "a: !!python/object/apply:os.getcwd []", "a: \x00", "a: 1\n b: 2", "? [1]\n: 2", "a: 2026-13-45"],
    ids=["open list", "python tag", "NUL", "indentation", "list as key", "no such date"],
)
def test_what_is_not_yaml_is_refused_by_file_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(JobError, match=r"job\.yaml: not YAML"):
        _read(tmp_path, text)


def test_a_file_over_its_cap_is_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=f"is over {JOB_BYTES_MAX}"):
        _read(tmp_path, "[" * (JOB_BYTES_MAX + 1))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"none\.yaml: No such file"):
        read_job(tmp_path / "none.yaml")


def test_the_demo_job_is_a_job() -> None:
    assert read_job(REPOSITORY / "jobs" / "demo.yaml").output == "out/demo"


# --- overrides ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("output=s3://bucket/spring", ("output",), "s3://bucket/spring"),
        ("seed=7", ("seed",), 7),
        ("defaults.num_inference_steps=8", ("defaults", "num_inference_steps"), 8),
        ("defaults.prompt=a=b", ("defaults", "prompt"), "a=b"),
        ("models.tiny.defaults.height=128", ("models", "tiny", "defaults", "height"), 128),
        ("sources.allow=[a/, b/]", ("sources", "allow"), ["a/", "b/"]),
        ("workers={count: 3}", ("workers", "count"), 3),
        ("models.tiny.revision=", ("models", "tiny", "revision"), None),
    ],
)
def test_an_override_wins_over_the_file(override: str, path: tuple[str, ...], value: Any) -> None:
    place: Any = parse_job(_values(seed=1, defaults={"prompt": "old"}), (override,)).model_dump()
    for key in path:
        place = place[key]
    assert place == value


def test_an_override_leaves_its_neighbours(tmp_path: Path) -> None:
    text = "manifest: m\noutput: o\nmodels: {tiny: {path: x, batch_size: 4, defaults: {height: 64, width: 72}}}\n"
    model = _read(tmp_path, text, "models.tiny.defaults.height=128").models["tiny"]
    assert (model.batch_size, model.defaults.height, model.defaults.width) == (4, 128, 72)


def test_the_last_of_two_overrides_wins() -> None:
    assert parse_job(_values(), ("seed=1", "seed=2")).seed == 2


def test_an_override_reaches_a_model_whose_name_holds_a_dot() -> None:
    values = _values(models={"sdxl-base-1.0": {"path": "builtin:tiny-random"}})
    assert parse_job(values, ("models.sdxl-base-1.0.batch_size=2",)).models["sdxl-base-1.0"].batch_size == 2


def test_an_override_leaves_its_argument_unchanged() -> None:
    values = _values(defaults={"height": 64})
    before = copy.deepcopy(values)
    assert parse_job(values, ("defaults.height=128", "models.tiny.defaults.width=8")).defaults.height == 128
    assert values == before


@pytest.mark.parametrize("override", ["output.folder=x", "models.tiny.path.more=x", "models.tiny.batch_size.max=4"])
def test_an_override_under_a_plain_value_is_refused(override: str) -> None:
    assert "is a value, not a mapping" in _refusal(_values(), override)


@pytest.mark.parametrize("override", ["output", "=x", ""])
def test_an_override_without_key_or_value_is_refused(override: str) -> None:
    assert "not of the form KEY.KEY=VALUE" in _refusal(_values(), override)


def test_an_override_that_is_not_yaml_is_refused_by_its_text() -> None:
    assert _refusal(_values(), "seed=[1").startswith("--set seed=[1: not YAML")


def test_an_override_of_an_unknown_key_is_refused() -> None:
    assert "defaults.stepz: unknown key" in _refusal(_values(), "defaults.stepz=3")


# --- secrets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["secret", "aws_secret_access_key", "access_key", "AccessKey", "password", "passwd", "api_key", "token"]
)
def test_a_key_that_looks_like_a_secret_is_refused_without_its_value(key: str) -> None:
    message = _refusal(_values(storage={"s3://assets/": {key: "hunter2"}}))
    assert f"storage.s3://assets/.{key} looks like a secret" in message
    assert "hunter2" not in message


def test_a_secret_in_an_override_is_refused() -> None:
    assert "storage.s3://b.secret looks like a secret" in _refusal(_values(), "storage.s3://b.secret=hunter2")


def test_a_value_that_speaks_of_secrets_is_taken() -> None:
    assert parse_job(_values(defaults={"prompt": "a secret token"})).defaults.prompt == "a secret token"


def test_a_bucket_whose_name_speaks_of_secrets_is_taken() -> None:
    storage = {"s3://secret-garden/": {"profile": "dam"}}
    assert parse_job(_values(storage=storage)).storage["s3://secret-garden/"].profile == "dam"


# --- JSON Schema ----------------------------------------------------------------------------------------------------


def test_the_schema_beside_the_jobs_is_the_code_s() -> None:
    stored = json.loads((REPOSITORY / "jobs" / "job.schema.json").read_text(encoding="utf-8"))
    assert stored == job_schema()


# --- what a bucket takes ---------------------------------------------------------------------------------------------


def test_options_that_a_scheme_does_not_take_are_refused_by_name() -> None:
    options = {"profile": "p", "region": "r"}

    message = _refusal(_values(storage={"gs://b/": options, "s3://b/": options, "/local": {}}))
    assert "gs://b/: gs:// takes no profile; it takes endpoint_url, anon" in message
    assert "gs:// takes no region" in message
    assert "'/local' is not a prefix of an object store; those begin with s3, gs," in message
    assert "s3:// takes no" not in message


# --- further folders -------------------------------------------------------------------------------------------------


def test_a_further_folder_is_a_path_or_a_path_with_a_revision() -> None:
    plain = parse_job(_values(models=_model(controlnet="/c"))).models["tiny"]
    pinned = parse_job(_values(models=_model(controlnet={"path": "/c", "revision": "a" * 40}))).models["tiny"]

    assert plain.laid_over["controlnet"].path == pinned.laid_over["controlnet"].path == "/c"
    assert (plain.controlnet and plain.controlnet.revision, plain.motion_adapter) == (None, None)
    assert pinned.laid_over["controlnet"].revision == "a" * 40
    assert parse_job(json.loads(json.dumps(parse_job(_values(models=_model(controlnet="/c"))).model_dump(mode="json"))))
    assert "models.tiny.controlnet.revison: unknown key; did you mean revision?" in _refusal(
        _values(models=_model(controlnet={"path": "/c", "revison": "a" * 40}))
    )
    assert "models.tiny.controlnet: 3 should be a mapping of keys" in _refusal(_values(models=_model(controlnet=3)))


def test_several_controlnets_are_a_list_and_each_has_a_name() -> None:
    nets: list[Any] = ["/c", {"path": "/d", "dtype": "float16"}, "/e"]
    for values in ({"controlnet": nets}, {"components": {"controlnet": nets}}):
        entry = parse_job(_values(models=_model(**values))).models["tiny"]
        paths = {name: one.path for name, one in entry.laid_over.items()}

        assert paths == {"controlnet": "/c", "controlnet_2": "/d", "controlnet_3": "/e"}
        assert entry.laid_over["controlnet_2"].dtype == "float16"
        again = parse_job(json.loads(json.dumps(_values(models={"tiny": entry.model_dump(mode="json")}))))
        assert again.models["tiny"] == entry
    one, plain = (parse_job(_values(models=_model(controlnet=net))).models["tiny"] for net in (["/c"], "/c"))
    assert one == plain
    assert "a list of 0 folders; 1 to 8 can be named" in _refusal(_values(models=_model(controlnet=[])))
    assert "a list of 9 folders" in _refusal(_values(models=_model(controlnet=["/c"] * 9)))
    twice = _model(controlnet=["/c", "/d"], components={"controlnet_2": "/e"})
    assert "controlnet_2 stands in components beside a list" in _refusal(_values(models=twice))
    assert "only an ip_adapter has one" in _refusal(
        _values(models=_model(controlnet={"path": "/c", "image_encoder": "/i"}))
    )


# --- versions --------------------------------------------------------------------------------------------------------


def test_a_job_may_say_its_version_and_a_newer_one_is_refused_by_name(tmp_path: Path) -> None:
    assert parse_job(_values(version=JOB_VERSION)) == parse_job(_values())
    newer = JOB_VERSION + 1
    expected = f"job version {newer}: this sdbatch reads up to {JOB_VERSION}"
    # What a newer version may say besides is not complained of.
    assert _refusal(_values(version=newer, prices={"gpu_hour": 1})) == f"job: {expected}"
    with pytest.raises(JobError, match=expected):
        _read(tmp_path, f"version: {newer}\n")
    assert "version: 'one' should be a valid integer" in _refusal(_values(version="one"))


# --- records ---------------------------------------------------------------------------------------------------------

RECORDS = sorted((REPOSITORY / "tests" / "fixtures" / "campaign_0_1").glob("campaign/runs/*/run.json"))


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: file.parent.name)
def test_a_job_that_version_0_1_wrote_down_is_read(file: Path) -> None:
    values = json.loads(file.read_text())["job"]
    job = job_of_record(values)

    assert values["models"]["named"]["revision"] == "v1"
    assert {name: model.path for name, model in job.models.items()} == {
        name: model["path"] for name, model in values["models"].items()
    }
    assert job.models["named"].revision is None
    assert job.models["named"].batch_size == values["models"]["named"]["batch_size"]
    with pytest.raises(JobError, match=r"models\.named\.revision"):
        parse_job(values)


def test_what_this_version_does_not_take_is_left_out_of_a_record() -> None:
    values = _values(
        models={"sd": {"path": "s3://b/sd", "revision": "v1", "family": "SD", "dtype": "int4", "turbo": True}},
        storage={"s3://b/": {"profile": "p", "proxy": "x"}, "gs://c/": {"profile": "p"}, "/local": {}},
        limits={"attempts": 0, "failed_fraction": 0.5},
        sources={"allow": ["/a"], "follow": True},
        since_forbidden=3,
    )
    before = copy.deepcopy(values)
    job = job_of_record(values)

    assert (job.models["sd"].path, job.models["sd"].dtype, job.models["sd"].family) == ("s3://b/sd", "float32", None)
    assert {prefix: options.profile for prefix, options in job.storage.items()} == {"s3://b/": "p", "gs://c/": None}
    assert (job.limits.attempts, job.limits.failed_fraction) == (3, 0.5)
    assert job.sources.allow == ["/a"]
    assert values == before


@pytest.mark.parametrize("name", ["manifest", "output", "models"])
def test_a_record_that_lacks_what_no_default_stands_for_is_refused(name: str) -> None:
    values = _values()
    del values[name]

    with pytest.raises(JobError, match=f"{name}: Field required"):
        job_of_record(values)


def test_a_record_of_a_newer_version_is_refused() -> None:
    with pytest.raises(JobError, match=f"job version 99: this sdbatch reads up to {JOB_VERSION}"):
        job_of_record(_values(version=99))


def _unbounded(schema: Any, place: str = "") -> list[str]:
    """Return the numbers in a JSON Schema that lack a bound."""
    if isinstance(schema, list):
        return [fault for number, item in enumerate(schema) for fault in _unbounded(item, f"{place}.{number}")]
    if not isinstance(schema, dict):
        return []
    faults = [fault for name, item in schema.items() for fault in _unbounded(item, f"{place}.{name}")]
    if schema.get("type") in ("integer", "number") and "const" not in schema and "enum" not in schema:
        most = schema.keys() & {"maximum", "exclusiveMaximum"}
        least = schema.keys() & {"minimum", "exclusiveMinimum"}
        faults += [place] if not most or not least else []
    return faults


def test_every_number_of_a_job_has_bounds() -> None:
    faults = _unbounded(job_schema())
    # A job's defaults are held to the manifest's bounds, row by row.
    others = [place for place in faults if not place.startswith(".$defs.Defaults.")]

    assert [place for place in others if "guidance_interval" not in place] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("limits.start_timeout_s", ".inf"), ("limits.deadline_min_s", ".nan"), ("models.tiny.num_gpus", ".inf")],
)
def test_what_is_no_number_is_refused(key: str, value: str) -> None:
    assert _refusal(_values(), f"{key}={value}").startswith(f"job: {key}: ")


# --- modules laid over a model ---------------------------------------------------------------------------------------


def test_components_are_named_once_and_what_changes_pixels_is_lossy() -> None:
    vae = {"path": "/vae", "dtype": "float32", "quantize": {"backend": "torchao", "type": "int8wo"}}
    components = {"vae": vae, "transformer": "/t.gguf"}
    model = parse_job(_values(models=_model(dtype="bfloat16", components=components, controlnet="/c"))).models["tiny"]

    assert list(model.laid_over) == ["controlnet", "vae", "transformer"]
    assert model.lossy == {
        "dtypes": {"vae": "float32"},
        "quantize": {"vae": {"backend": "torchao", "type": "int8wo"}},
    }
    assert "say it once" in _refusal(_values(models=_model(components={"controlnet": "/d"}, controlnet="/c")))
    assert "quantize.vae stands beside components.vae.quantize" in _refusal(
        _values(models=_model(components=components, quantize={"vae": {"backend": "torchao", "type": "int8wo"}}))
    )


def test_tiling_is_lossy_where_it_is_said_and_parts_of_a_decode_are_of_exact_keys_alone() -> None:
    said = parse_job(_values(models=_model(vae={"tiling": True, "decode_batch": 2}))).models["tiny"]
    plain = parse_job(_values(models=_model(vae={}, offload="group"))).models["tiny"]

    assert said.lossy == {"vae": {"tiling": True}}
    assert said.accelerators == {"vae": {"tiling": True, "decode_batch": 2}}
    assert plain.lossy == plain.accelerators == {}


def test_a_type_that_a_backend_does_not_have_is_refused_with_those_it_has() -> None:
    refusal = _refusal(_values(models=_model(quantize={"unet": {"backend": "quanto", "type": "nf4"}})))
    assert "models.tiny.quantize.unet: type: 'nf4' is none of quanto's; it has int8, int4, int2, float8" in refusal


@pytest.mark.parametrize("name", ["delivery.yaml", "brief.yaml", "products.csv"])
def test_a_file_of_another_kind_is_told_by_what_it_is(name: str, tmp_path: Path) -> None:
    sdbatch.init(tmp_path / "s")
    with pytest.raises(JobError) as caught:
        read_job(tmp_path / "s" / name)
    kind = name.partition(".")[0]
    said = (
        "is a table; a job is a YAML file" if kind == "products" else f"is a {kind}, and a job is asked for; `sdbatch "
    )
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(JobError, match=r"job\.yaml: is a job, and a delivery is asked for"):
        sdbatch.deliver(tmp_path / "s" / "job.yaml")
    with pytest.raises(JobError, match=r"job\.yaml: is a job, and a brief is asked for"):
        sdbatch.count_brief(tmp_path / "s" / "job.yaml")


def test_a_delivery_that_made_nothing_yet_is_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sdbatch.init(tmp_path / "s")
    monkeypatch.chdir(tmp_path / "s")
    done = CliRunner().invoke(app, ["verify", "delivery.yaml"])
    assert (done.exit_code, done.stderr) == (
        2,
        "sdbatch: delivery.yaml: no delivery at out/delivered yet; `sdbatch deliver delivery.yaml` makes it\n",
    )
