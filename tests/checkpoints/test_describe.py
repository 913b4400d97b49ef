"""What a model folder says of itself, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.revisions import PINNED
from support.weights import weights

from sdbatch.checkpoints import BUILTINS, describe
from sdbatch.errors import ModelError, ModelLoadFailed
from sdbatch.generate.load import load_model
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Component, Defaults, Model
from sdbatch.storage import open_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_tiny_random(folder)
    return folder


def test_a_folder_tells_family_size_and_parameters(folder: Path) -> None:
    found = describe("tiny", Model(path=str(folder)), {})

    assert found.family.class_name == "StableDiffusionPipeline"
    assert (found.height, found.width) == (64, 64)
    assert found.parameters == BUILTINS["tiny-random"].parameters


def test_the_builtin_table_says_what_its_folder_says(folder: Path) -> None:
    found = describe("tiny", Model(path=str(folder)), {})
    builtin = describe("tiny", Model(path="builtin:tiny-random"), {})

    assert (builtin.family, builtin.height, builtin.width) == (found.family, found.height, found.width)


def test_the_builtin_is_the_same_model_wherever_it_is_made(folder: Path, tmp_path: Path) -> None:
    make_tiny_random(tmp_path)

    assert describe("a", Model(path=str(folder)), {}).revision == describe("b", Model(path=str(tmp_path)), {}).revision


def test_the_revision_follows_what_the_loader_reads_and_nothing_else(tmp_path: Path) -> None:
    make_tiny_random(tmp_path)

    def revision() -> str:
        return describe("tiny", Model(path=str(tmp_path)), {}).revision

    before = revision()
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle nobody opens")
    assert revision() == before
    config = tmp_path / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.012", "0.013"))
    assert revision() != before
    assert describe("tiny", Model(path=str(tmp_path), revision=PINNED), {}).revision == PINNED


@pytest.mark.s3
def test_a_folder_in_a_bucket_is_described_and_loaded(s3_endpoint: str, folder: Path) -> None:
    from sdbatch.generate.load import load_model

    store = open_store("s3://campaigns/models/tiny", {})
    for file in folder.rglob("*"):
        if file.is_file():
            store.put(str(file.relative_to(folder)), file.read_bytes())
    model = Model(path="s3://campaigns/models/tiny")
    found = describe("remote", model, {})

    assert (found.height, found.family.class_name) == (64, "StableDiffusionPipeline")
    assert load_model("remote", model, found.revision, {}).class_name == "StableDiffusionPipeline"


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"models\.a: .*no model_index\.json"):
        describe("a", Model(path=str(tmp_path)), {})
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "EvilPipeline"}))
    with pytest.raises(ModelError, match="is a EvilPipeline; families served"):
        describe("a", Model(path=str(tmp_path)), {})
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ModelError, match="is not JSON"):
        describe("a", Model(path=str(tmp_path)), {})
    with pytest.raises(ModelError, match=r"there are builtin:tiny-sd, builtin:tiny-video, builtin:tiny-random"):
        describe("a", Model(path="builtin:huge"), {})


def test_a_folder_that_brings_code_or_pickles_runs_none(tmp_path: Path) -> None:
    from sdbatch.errors import ModelLoadFailed
    from sdbatch.generate.load import load_model

    make_tiny_random(tmp_path)
    proof = tmp_path / "ran"
    payload = f"import pathlib; pathlib.Path({str(proof)!r}).touch()"
    (tmp_path / "unet" / "evil.py").write_text(f"{payload}\nclass Evil: pass\n")
    index = json.loads((tmp_path / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "unet": ["evil", "Evil"]}))
    model = Model(path=str(tmp_path), revision=PINNED)
    with pytest.raises(ModelLoadFailed):
        load_model("a", model, PINNED, {})
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelLoadFailed):
        load_model("a", model, PINNED, {})

    assert not proof.exists()


# --- a family the job states -----------------------------------------------------------------------------------------


def _stated(path: str, **changes: Any) -> Model:
    size = Defaults(height=64, width=64)
    return Model(
        **{"path": path, "family": "Stable Diffusion 1.x/2.x", "revision": PINNED, "defaults": size, **changes}
    )


def test_a_stated_family_needs_no_folder() -> None:
    found = describe("sd", _stated("s3://no-such-bucket/sd15"), {})

    assert (found.family.class_name, found.revision, found.height) == ("StableDiffusionPipeline", PINNED, 64)
    with pytest.raises(ModelError, match=r"no model_index\.json"):
        describe("sd", Model(path="/no/such/folder", revision=PINNED), {})


def test_what_a_stated_family_leaves_open_is_asked_for() -> None:
    with pytest.raises(ValidationError, match="without a revision"):
        _stated("models/sd15", revision=None)
    with pytest.raises(ModelError, match=r"models\.sd: .* say defaults\.height and defaults\.width"):
        describe("sd", _stated("models/sd15", defaults=Defaults(height=64)), {})
    with pytest.raises(ModelError, match=r"'Stable Difusion XL' is not a family; did you mean Stable Diffusion XL"):
        describe("sd", _stated("models/sd15", family="Stable Difusion XL"), {})


def test_a_load_looks_whether_the_stated_family_is_the_folders(folder: Path) -> None:
    assert load_model("sd", _stated(str(folder)), PINNED, {}).class_name == "StableDiffusionPipeline"
    with pytest.raises(ModelLoadFailed, match=r"is Stable Diffusion 1\.x/2\.x, the job says Stable Diffusion XL"):
        load_model("sd", _stated(str(folder), family="Stable Diffusion XL"), PINNED, {})


# --- further folders of an entry -------------------------------------------------------------------------------------


def test_each_further_folder_has_an_identity_of_its_own(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "ControlNetModel"}))
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(weights({"w": [1]}))
    plain = describe("tiny", Model(path=str(folder)), {})
    first = describe("tiny", Model(path=str(folder), controlnet=Component(path=str(tmp_path))), {})
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "ControlNetModel", "in_channels": 4}))
    second = describe("tiny", Model(path=str(folder), controlnet=Component(path=str(tmp_path))), {})

    assert plain.base_revision == first.base_revision == second.base_revision == plain.revision
    assert plain.component_revisions == {}
    assert first.component_revisions.keys() == {"controlnet"}
    assert first.component_revisions != second.component_revisions
    assert len({plain.revision, first.revision, second.revision}) == 3
