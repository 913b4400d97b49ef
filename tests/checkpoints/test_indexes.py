"""What a folder's configurations say that no pipeline reads, or that is not served, is refused at check."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import transformers
from support.toy_clips import make_cogvideox, make_wan_t2v
from support.toy_models import make_tiny_flux, make_tiny_sana, make_tiny_sd3
from support.weights import weights

from sdbatch.checkpoints import SHIPPED, describe
from sdbatch.checkpoints.lacks import has_words
from sdbatch.errors import ModelError
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Model

TINY = SHIPPED["tiny-sd"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def _change(file: Path, change: Mapping[str, Any]) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))


def _said(folder: Path, **entry: Any) -> str:
    with pytest.raises(ModelError) as refused:
        describe("m", Model.model_validate({"path": str(folder), **entry}), {}, with_revision=False)
    said = str(refused.value)
    assert said.startswith(f"models.m: {folder}")
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"vae": [None, None]},
            "names no vae, which Stable Diffusion 1.x/2.x needs; lay one over it",
        ),
        ({"vae": None}, "names no vae, which"),
        ({"unet": ["diffusers"]}, "unet is ['diffusers']; it must be [library, class]"),
        (
            {"unet": ["diffusers", "UNetOfTomorrow"]},
            "unet is a UNetOfTomorrow, which diffusers, as it is installed, does",
        ),
        (
            {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]},
            "scheduler is a FlowMatchEulerDiscreteScheduler, which Stable Diffusion 1.x/2.x does not take",
        ),
        ({"_class_name": None}, "names no _class_name; copy the file again"),
    ],
)
def test_an_index_that_no_pipeline_reads_is_refused(change: dict[str, Any], says: str, folder: Path) -> None:
    _change(folder / "model_index.json", change)

    assert f"/model_index.json{' ' if '_class' in says else ': '}{says}" in _said(folder)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_a_configuration_that_an_editor_saved_in_another_encoding_is_refused(
    encoding: str, file: str, folder: Path
) -> None:
    (folder / file).write_text((folder / file).read_text(), encoding)

    assert f"{file} is not JSON in plain UTF-8: " in _said(folder)


def test_a_module_that_is_laid_over_need_not_stand_in_the_index(folder: Path) -> None:
    _change(folder / "model_index.json", {"vae": [None, None]})

    over = Model.model_validate({"path": str(folder), "components": {"vae": str(folder / "vae")}})
    assert describe("m", over, {}).components == {"vae": "AutoencoderKL"}


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        (
            "unet",
            {"in_channels": 9},
            "is an inpainting model, which is not served as Stable Diffusion 1.x/2.x: its unet/",
        ),
        ("unet", {"in_channels": 8}, "is InstructPix2Pix, which is not served as"),
        ("unet", {"sample_size": "64"}, "unet/config.json says sample_size '64', which is no number"),
        ("vae", {"block_out_channels": 4}, "vae/config.json says block_out_channels 4, which is no list"),
        (
            "scheduler",
            {"prediction_type": "v"},
            "scheduler/scheduler_config.json says prediction_type 'v'; there are epsi",
        ),
    ],
)
def test_a_configuration_that_is_not_served_is_refused(
    file: str, change: dict[str, Any], says: str, folder: Path
) -> None:
    _change(folder / file / ("scheduler_config.json" if file == "scheduler" else "config.json"), change)

    assert says in _said(folder)


def test_a_scheduler_of_noise_is_refused_for_a_model_of_a_flow(folder: Path, tmp_path: Path) -> None:
    make_tiny_flux(tmp_path / "flux")
    make_wan_t2v(tmp_path / "wan")
    multistep = tmp_path / "multistep"
    diffusers.UniPCMultistepScheduler().save_pretrained(multistep)

    def said(name: str, **components: str) -> str:
        with pytest.raises(ModelError) as refused:
            describe("m", Model.model_validate({"path": str(tmp_path / name), "components": components}), {})
        return str(refused.value)

    assert describe("m", Model(path=str(tmp_path / "wan")), {}).family.title == "Wan 2.1 T2V"
    over = said("wan", scheduler=str(multistep))
    assert f"models.m.components.scheduler: {multistep}: is a UniPCMultistepScheduler for what predicts eps" in over
    assert "and Wan 2.1 T2V predicts a flow; the nearest is DPMSolverMultistepScheduler" in over
    _change(tmp_path / "flux" / "model_index.json", {"scheduler": ["diffusers", "UniPCMultistepScheduler"]})
    assert "scheduler: is a UniPCMultistepScheduler for what predicts epsilon, and Flux.1 predicts a f" in said("flux")
    config = tmp_path / "flux" / "scheduler" / "scheduler_config.json"
    _change(config, {"prediction_type": "flow_prediction"})
    half = said("flux")
    assert "configuration says prediction_type flow_prediction and use_flow_sigmas false: of a flow it says" in half
    _change(config, {"use_flow_sigmas": True, "prediction_type": "epsilon"})
    assert "configuration says prediction_type epsilon and use_flow_sigmas true: of a flow it says" in said("flux")
    _change(config, {"prediction_type": "flow_prediction"})
    assert describe("m", Model(path=str(tmp_path / "flux")), {}).family.title == "Flux.1"


@pytest.mark.parametrize(
    ("make", "class_name", "nearest"),
    [
        (make_tiny_flux, "FlowMatchHeunDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
        (make_tiny_flux, "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
        (make_wan_t2v, "CogVideoXDPMScheduler", "DPMSolverMultistepScheduler"),
        (make_cogvideox, "FlowMatchEulerDiscreteScheduler", "CogVideoXDDIMScheduler"),
        (make_cogvideox, "LTXEulerAncestralRFScheduler", "CogVideoXDDIMScheduler"),
        (make_tiny_sana, "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
        (make_tiny_random, "DDIMInverseScheduler", "DDIMScheduler"),
        (make_tiny_random, "IPNDMScheduler", "DDIMScheduler"),
    ],
)
def test_a_scheduler_that_the_pipelines_cannot_call_is_refused(
    make: Callable[[Path], None], class_name: str, nearest: str, tmp_path: Path
) -> None:
    make(tmp_path)
    getattr(diffusers, class_name)().save_pretrained(tmp_path / "scheduler")
    _change(tmp_path / "model_index.json", {"scheduler": ["diffusers", class_name]})

    with pytest.raises(ModelError, match=f"scheduler is a {class_name}, which .* does not take; .* {nearest}"):
        describe("m", Model(path=str(tmp_path)), {})


@pytest.mark.parametrize(
    ("make", "class_name", "config", "says"),
    [
        (
            make_tiny_random,
            "DPMSolverMultistepScheduler",
            {"prediction_type": "flow_prediction"},
            "prediction_type flow_prediction and use_flow_sigmas false",
        ),
        (make_tiny_random, "UniPCMultistepScheduler", {"use_flow_sigmas": True}, "use_flow_sigmas true"),
        (make_tiny_random, "DDPMScheduler", {"variance_type": "learned_range"}, "whose variance_type is learned_range"),
        (make_tiny_sd3, "FlowMatchLCMScheduler", {"scale_factors": [0.5, 1.0]}, "with scale_factors, which enlarges"),
        (
            make_tiny_sana,
            "DPMSolverMultistepScheduler",
            {},
            "predicts epsilon, and Sana predicts a flow; the nearest is",
        ),
        (make_tiny_sd3, "HeliosScheduler", {}, "which Stable Diffusion 3/3.5 does not take; the nearest is"),
    ],
)
@pytest.mark.parametrize("is_laid_over", [False, True])
def test_a_scheduler_of_another_kind_of_model_is_refused(
    make: Callable[[Path], None],
    class_name: str,
    config: dict[str, Any],
    says: str,
    is_laid_over: bool,
    tmp_path: Path,
) -> None:
    model = {"path": str(tmp_path / "model")}
    make(tmp_path / "model")
    place = tmp_path / ("other" if is_laid_over else "model/scheduler")
    getattr(diffusers, class_name)(**config).save_pretrained(place)
    _change(tmp_path / "model" / "model_index.json", {"scheduler": ["diffusers", class_name]})
    over = {"components": {"scheduler": str(place)}} if is_laid_over else {}

    with pytest.raises(ModelError, match=f"scheduler.* is a {class_name}[ ,]") as refused:
        describe("m", Model.model_validate({**model, **over}), {})
    assert says in str(refused.value)


def test_a_tokenizer_without_its_words_is_refused(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink()
    assert f"{folder}/tokenizer: has no vocabulary (" in _said(folder)
    silent = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    assert len(set(silent("a red fox").input_ids)) <= 2, "transformers reads it, and knows no word"

    bare = {"path": str(folder), "components": {"tokenizer": str(folder / "tokenizer")}}
    with pytest.raises(ModelError, match=r"models\.m\.components\.tokenizer: .*: has no vocabulary"):
        describe("m", Model.model_validate(bare), {})
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    assert "has no vocabulary" in _said(folder)
    (folder / "tokenizer" / "merges.txt").write_text("")
    assert describe("m", Model(path=str(folder)), {}).height > 0
    assert has_words("ByT5Tokenizer", set())


def test_an_index_is_looked_at_before_what_its_modules_lack(folder: Path) -> None:
    _change(folder / "model_index.json", {"unet": ["diffusers", "UNetOfTomorrow"]})
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(weights({"a": [1]})[:-1])

    assert "UNetOfTomorrow" in _said(folder)


def test_a_folder_that_is_no_model_is_told_by_what_lies_in_it(tmp_path: Path) -> None:
    assert "; it is one module of a model; name the folder that it lies in" in _said(TINY / "unet")
    assert "; the folder is missing or empty; a hub's model is fetched first" in _said(tmp_path / "a" / "b")
    cache = tmp_path / "models--a--b"
    shutil.copytree(TINY, cache / "snapshots" / ("a" * 40))
    assert f"; a hub's cache has it in snapshots/{'a' * 40}; name that folder" in _said(cache)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "sd.safetensors").write_bytes(b"")
    assert f"; for a model in one file name the file, such as {tmp_path}/files/sd.safetensors" in _said(
        tmp_path / "files"
    )


@pytest.mark.parametrize("option", ["like", "config"])
def test_what_chooses_for_one_file_is_refused_for_a_folder(option: str) -> None:
    model = Model.model_validate({"path": str(TINY), option: "Stable Diffusion XL v-prediction"})

    with pytest.raises(ModelError, match=rf"^models\.m\.{option}: is for a model in one file, and .* is a folder"):
        describe("m", model, {})
