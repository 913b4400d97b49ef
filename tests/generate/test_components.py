"""A module that is laid over a model's own: read from a folder or a file, in its own numbers, and never in part."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.toy_clips import make_wan_t2v_a14b
from support.toy_models import make_tiny_controlnet, make_tiny_flux, make_tiny_qwen
from support.toy_parts import loaded, make_gguf, pixels_of

from sdbatch.errors import ModelLoadFailed
from sdbatch.generate.random_weights import make_tiny_random

FLUX_MODULES = ("vae", "transformer", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flux")
    make_tiny_flux(folder)
    return folder


@pytest.fixture(scope="module")
def plain(flux: Path) -> Any:
    return pixels_of(loaded({"path": str(flux)}))


def _twin(folder: Path, to: Path, module: str, by: float = 1.5) -> Path:
    """Return a copy of a module whose matrices are larger."""
    target = Path(shutil.copytree(folder / module, to / module))
    (file,) = target.glob("*.safetensors")
    state = {key: value * by if value.ndim > 1 else value for key, value in load_file(file).items()}
    save_file(state, file, metadata={"format": "pt"})
    return target


def test_folders_of_every_module_laid_over_give_the_models_own_pixels(flux: Path, plain: Any) -> None:
    components = {module: str(flux / module) for module in FLUX_MODULES}

    assert np.array_equal(pixels_of(loaded({"path": str(flux), "components": components})), plain)


@pytest.mark.parametrize("module", ["vae", "transformer", "text_encoder_2"])
def test_a_module_of_another_folder_counts_and_the_models_own_need_not_be_there(
    module: str, flux: Path, plain: Any, tmp_path: Path
) -> None:
    bare = Path(shutil.copytree(flux, tmp_path / "bare"))
    shutil.rmtree(bare / module)
    other = _twin(flux, tmp_path, module)

    entry = {"path": str(bare), "components": {module: str(other)}}
    found = pixels_of(loaded(entry))
    assert np.abs(found - plain).max() > 0.01
    of_file = {"path": str(other / next(other.glob("*.safetensors")).name), "config": str(other)}
    assert np.array_equal(pixels_of(loaded({**entry, "components": {module: of_file}})), found)


def test_a_file_is_described_by_the_models_own_configuration(flux: Path, plain: Any) -> None:
    weights = {
        "vae": "diffusion_pytorch_model.safetensors",
        "transformer": "diffusion_pytorch_model.safetensors",
        "text_encoder": "model.safetensors",
        "text_encoder_2": "model.safetensors",
    }
    components = {module: str(flux / module / file) for module, file in weights.items()}

    assert np.array_equal(pixels_of(loaded({"path": str(flux), "components": components})), plain)


@pytest.mark.parametrize("prefix", ["transformer.", "cond_stage_model.transformer."])
def test_a_text_encoder_that_was_taken_out_of_a_models_file_is_read(
    prefix: str, flux: Path, plain: Any, tmp_path: Path
) -> None:
    own = load_file(flux / "text_encoder" / "model.safetensors")
    named = {key if key.startswith("text_model.") else f"text_model.{key}": value for key, value in own.items()}
    save_file({f"{prefix}{key}": value for key, value in named.items()}, tmp_path / "clip_l.safetensors")
    components = {"text_encoder": str(tmp_path / "clip_l.safetensors")}

    assert np.array_equal(pixels_of(loaded({"path": str(flux), "components": components})), plain)


@pytest.mark.parametrize("is_file", [True, False])
def test_a_text_encoder_without_the_head_that_makes_words_gives_the_same_pixels(is_file: bool, tmp_path: Path) -> None:
    make_tiny_qwen(tmp_path / "qwen")
    plain = pixels_of(loaded({"path": str(tmp_path / "qwen")}))
    folder = Path(shutil.copytree(tmp_path / "qwen" / "text_encoder", tmp_path / "other"))
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    components = {"text_encoder": str(folder / "model.safetensors" if is_file else folder)}

    assert np.array_equal(pixels_of(loaded({"path": str(tmp_path / "qwen"), "components": components})), plain)


@pytest.mark.parametrize(
    ("module", "dtype", "component_dtype"),
    [("vae", "bfloat16", "float32"), ("vae", "float32", "bfloat16"), ("text_encoder_2", "bfloat16", "float32")],
)
def test_a_component_keeps_numbers_of_its_own(module: str, dtype: str, component_dtype: str, flux: Path) -> None:
    entry = {"path": str(flux), "dtype": dtype}
    model = loaded({**entry, "components": {module: {"path": str(flux / module), "dtype": component_dtype}}})

    found = pixels_of(model)
    dtypes = {name: part.dtype for name, part in model._base.components.items() if isinstance(part, torch.nn.Module)}
    assert dtypes.pop(module) == getattr(torch, component_dtype)
    assert set(dtypes.values()) == {getattr(torch, dtype)}
    assert 0 < np.abs(found - pixels_of(loaded(entry))).max() < 0.1


def test_both_experts_of_wan_are_replaced_and_its_vae_stays_in_float32(tmp_path: Path) -> None:
    folder = tmp_path / "wan"
    make_wan_t2v_a14b(folder)
    experts = {name: str(_twin(folder, tmp_path, name)) for name in ("transformer", "transformer_2")}
    clip = {"num_frames": 5, "num_inference_steps": 2, "guidance_scale": 1.0}
    entry = {"path": str(folder), "dtype": "bfloat16"}
    before = pixels_of(loaded(entry), **clip)

    components = {**experts, "vae": str(folder / "vae")}
    model = loaded({**entry, "components": components})
    assert model._base.vae.dtype == torch.float32
    after = pixels_of(model, **clip)
    assert np.abs(after - before).max() > 0.01
    for name in experts:
        one = loaded({**entry, "components": {**components, name: str(folder / name)}})
        assert not np.array_equal(pixels_of(one, **clip), after)


def test_a_controlnet_among_the_components_is_for_the_routes_that_read_one(tmp_path: Path) -> None:
    make_tiny_random(tmp_path / "sd")
    make_tiny_controlnet(tmp_path / "control")
    model = loaded({"path": str(tmp_path / "sd"), "components": {"controlnet": str(tmp_path / "control")}})

    assert "controlnet" not in model._base.components
    assert type(model._components["controlnet"]).__name__ == "ControlNetModel"


def test_gguf_renders_offline_and_within_a_bound_of_the_plain_model(
    flux: Path, plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_gguf(flux / "transformer" / "diffusion_pytorch_model.safetensors", tmp_path / "flux-Q8_0.gguf")
    monkeypatch.setattr(socket, "socket", _no_socket)
    model = loaded({"path": str(flux), "components": {"transformer": str(path)}})

    assert {type(weight).__name__ for weight in model._base.transformer.parameters()} >= {"GGUFParameter"}
    difference = np.abs(pixels_of(model) - plain)
    assert 0 < difference.max() < 0.05
    assert difference.mean() < 0.005


def _no_socket(*_: Any, **__: Any) -> Any:
    raise AssertionError("a socket was opened")


def test_weights_that_are_not_there_are_not_made_up(flux: Path, tmp_path: Path) -> None:
    for module, file in (
        ("transformer", "diffusion_pytorch_model.safetensors"),
        ("text_encoder_2", "model.safetensors"),
    ):
        other = Path(shutil.copytree(flux / module, tmp_path / module))
        state = load_file(other / file)
        lost = min(key for key, value in state.items() if value.ndim > 1)
        del state[lost]
        save_file(state, other / file, metadata={"format": "pt"})
        for path in (other, other / file):
            with pytest.raises(ModelLoadFailed, match=rf"lacks \d+ weights of {module}, such as |it lacks weights, or"):
                loaded({"path": str(flux), "components": {module: str(path)}})


def test_an_encoder_of_another_size_is_refused_by_one_line(flux: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(flux / "transformer", tmp_path / "transformer"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "num_layers": 3}))

    with pytest.raises(ModelLoadFailed, match=r"lacks .* weights of transformer"):
        loaded({"path": str(flux), "components": {"transformer": str(other)}})
