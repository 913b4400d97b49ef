"""A module that was read in part is refused: neither are weights made up, nor are layers passed over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support.original_layout import sd_file
from support.toy_models import make_tiny_flux
from support.toy_parts import loaded, pixels_of

from sdbatch.errors import ModelLoadFailed
from sdbatch.generate.random_weights import make_tiny_random

WEIGHTS = {"text_encoder": "model.safetensors", "text_encoder_2": "model.safetensors"}
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flux")
    make_tiny_flux(folder)
    return folder


def _changed(flux: Path, tmp_path: Path, module: str, change: Callable[[Tensors], object]) -> Path:
    """Return a copy of the model, the weights of one module changed."""
    folder = Path(shutil.copytree(flux, tmp_path / "model"))
    file = folder / module / WEIGHTS.get(module, "diffusion_pytorch_model.safetensors")
    state = load_file(file)
    change(state)
    save_file(state, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("module", ["text_encoder", "text_encoder_2", "transformer", "vae"])
def test_weights_that_a_folder_lacks_are_not_made_up(module: str, flux: Path, tmp_path: Path) -> None:
    lost = []

    def lose(state: Tensors) -> None:
        key = min(key for key, value in state.items() if value.ndim > 1)
        lost.append(key)
        del state[key]

    folder = _changed(flux, tmp_path, module, lose)
    with pytest.raises(ModelLoadFailed, match=rf"model/{module}: lacks 1 weights of {module}, such as ") as refused:
        loaded({"path": str(folder)})
    assert lost[0] in str(refused.value)


@pytest.mark.parametrize(
    ("change", "layer"),
    [
        ({"num_single_layers": 0}, "single_transformer_blocks.0.attn.to_k.weight"),
        ({"guidance_embeds": False}, "time_text_embed.guidance_embedder.linear_1.weight"),
    ],
)
def test_layers_that_the_configuration_has_no_place_for_are_not_passed_over(
    change: dict[str, Any], layer: str, flux: Path, tmp_path: Path
) -> None:
    folder = _changed(flux, tmp_path, "transformer", lambda _: None)
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    said = rf"holds? \d+ layers of transformer that its config\.json has no place for, such as {layer}; take the config"

    with pytest.raises(ModelLoadFailed, match=said):
        loaded({"path": str(folder)})
    with pytest.raises(ModelLoadFailed, match=said):
        loaded({"path": str(flux), "components": {"transformer": str(folder / "transformer")}})
    with pytest.raises(ModelLoadFailed, match=said):
        loaded({"path": str(folder), "quantize": {"transformer": {"backend": "torchao", "type": "int8wo"}}})


@pytest.mark.parametrize(
    ("module", "key", "layer"),
    [
        ("text_encoder", "num_hidden_layers", r"encoder\.layers\.1\."),
        ("text_encoder_2", "num_layers", r"encoder\.block\.1\."),
    ],
)
def test_layers_of_a_text_encoder_that_its_configuration_has_no_place_for_are_not_passed_over(
    module: str, key: str, layer: str, flux: Path, tmp_path: Path
) -> None:
    folder = _changed(flux, tmp_path, module, lambda _: None)
    config = folder / module / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), key: 1}))
    said = rf"hold \d+ layers of {module} that its config\.json has no place for, such as {layer}"

    with pytest.raises(ModelLoadFailed, match=said):
        loaded({"path": str(folder)})
    file = {"path": str(flux / module / WEIGHTS[module]), "config": str(config.parent)}
    with pytest.raises(ModelLoadFailed, match=said):
        loaded({"path": str(flux), "components": {module: file}})


def test_a_text_encoder_beside_the_other_half_of_its_network_is_read(flux: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(flux, tmp_path / "model"))
    text = transformers.CLIPTextModel.from_pretrained(str(flux / "text_encoder"))
    vision = transformers.CLIPVisionConfig(hidden_size=32, num_hidden_layers=4, num_attention_heads=2)
    whole = transformers.CLIPModel(transformers.CLIPConfig(text_config=text.config, vision_config=vision))
    whole.text_model.load_state_dict(text.state_dict())
    whole.save_pretrained(folder / "text_encoder")
    text.config.save_pretrained(folder / "text_encoder")

    assert np.array_equal(pixels_of(loaded({"path": str(folder)})), pixels_of(loaded({"path": str(flux)})))


def test_a_text_encoder_whose_configuration_is_of_another_type_is_refused(flux: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(flux, tmp_path / "model"))
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_act": None}))
    entry = {"path": str(folder / "text_encoder" / "model.safetensors"), "config": str(config.parent)}

    with pytest.raises(ModelLoadFailed, match=r"model/text_encoder: is not read as a CLIPTextModel: .*'hidden_act'"):
        loaded({"path": str(folder)})
    with pytest.raises(ModelLoadFailed, match=r"Validation error for field 'hidden_act'"):
        loaded({"path": str(flux), "components": {"text_encoder": entry}})


def test_what_older_versions_wrote_is_read_as_a_whole(flux: Path, tmp_path: Path) -> None:
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(state: Tensors) -> None:
        for key in list(state):
            new = key
            for word, other in older.items():
                new = new.replace(word, other)
            state[new] = state.pop(key)
        state["num_steps"] = torch.zeros(1)

    folder = _changed(flux, tmp_path, "vae", rename)
    text = folder / "text_encoder" / "model.safetensors"
    state = {f"text_model.{key}": value for key, value in load_file(text).items()}
    save_file({**state, "text_model.embeddings.position_ids": torch.arange(77)[None]}, text, metadata={"format": "pt"})

    assert np.array_equal(pixels_of(loaded({"path": str(folder)})), pixels_of(loaded({"path": str(flux)})))


def test_the_libraries_are_left_as_they_were(flux: Path, tmp_path: Path) -> None:
    readers = (diffusers.ModelMixin, transformers.PreTrainedModel)
    before = [reader.__dict__["from_pretrained"] for reader in readers]
    folder = _changed(flux, tmp_path, "vae", lambda state: state.clear())

    loaded({"path": str(flux)})
    with pytest.raises(ModelLoadFailed):
        loaded({"path": str(folder)})
    assert [reader.__dict__["from_pretrained"] for reader in readers] == before


def test_layers_of_one_file_that_its_configuration_has_no_place_for_are_not_passed_over(tmp_path: Path) -> None:
    make_tiny_random(tmp_path / "sd")
    sd_file(tmp_path / "sd", tmp_path / "sd.safetensors")
    weights = load_file(tmp_path / "sd.safetensors")
    layer = "model.diffusion_model.middle_block.1.transformer_blocks"
    more = {key.replace(f"{layer}.0.", f"{layer}.1."): value.clone() for key, value in weights.items() if layer in key}
    save_file({**weights, **more}, tmp_path / "more.safetensors")
    entry = {"path": str(tmp_path / "sd")}

    whole = pixels_of(loaded({**entry, "components": {"unet": str(tmp_path / "sd.safetensors")}}))
    assert np.array_equal(whole, pixels_of(loaded(entry)))
    with pytest.raises(ModelLoadFailed, match=r"its unet has \d+ numbers in layers, and by the config\.json that"):
        loaded({**entry, "components": {"unet": str(tmp_path / "more.safetensors")}})


@pytest.mark.parametrize(
    ("own", "further", "said"),
    [
        (
            "cond_stage_model.transformer.text_model.encoder.layers.0.",
            "layers.2.",
            r"has 3 layers of a text encoder \(c",
        ),
        (
            "first_stage_model.decoder.up.0.block.0.",
            "block.7.",
            r"its vae has \d+ numbers in layers, and by its config",
        ),
    ],
)
def test_a_whole_file_whose_configs_have_fewer_layers_is_refused(
    own: str, further: str, said: str, tmp_path: Path
) -> None:
    make_tiny_random(tmp_path / "sd")
    sd_file(tmp_path / "sd", tmp_path / "sd.safetensors")
    weights = load_file(tmp_path / "sd.safetensors")
    place = own[: own.rstrip(".").rindex(".")].rpartition(".")[0] + "." + further
    more = {key.replace(own, place): value.clone() for key, value in weights.items() if key.startswith(own)}
    save_file({**weights, **more}, tmp_path / "more.safetensors")
    configs = {"config": str(tmp_path / "sd"), "dtype": "float32"}

    assert loaded({"path": str(tmp_path / "sd.safetensors"), **configs})
    with pytest.raises(ModelLoadFailed, match=said):
        loaded({"path": str(tmp_path / "more.safetensors"), **configs})
