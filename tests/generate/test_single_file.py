"""A single file in its authors' layout makes the very pixels of the folder it was written from, and asks no hub."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from conftest import prompts
from PIL import Image
from safetensors.torch import load_file, save_file
from support.original_layout import (
    all_in_one,
    aura_flow_file,
    flux_transformer,
    klein_file,
    refiner_file,
    sd_file,
    sdxl_file,
    wan_transformer,
)
from support.studio import Case, Studio, base_row
from support.toy_clips import make_wan_flf2v
from support.toy_models import make_tiny_flux, make_tiny_klein, make_tiny_sdxl, make_tiny_xl_refiner
from support.toy_newer import make_tiny_aura_flow
from typer.testing import CliRunner

import sdbatch
from sdbatch.checkpoints import describe
from sdbatch.checkpoints.layouts import PREFIX
from sdbatch.checkpoints.module_weights import module_parameters
from sdbatch.cli import app
from sdbatch.errors import ModelError, ModelLoadFailed
from sdbatch.families import FAMILIES
from sdbatch.generate.load import load_model
from sdbatch.generate.load.single_file import pipeline_from_file
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Component, Model
from sdbatch.storage import open_store


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse every connection, and every name that is asked for, where no bucket is part of the test."""
    asked: list[Any] = []

    def refused(*arguments: Any, **_: Any) -> Any:
        asked.append(arguments)
        raise OSError(f"a socket was asked for: {arguments}")

    if "s3" not in request.keywords:
        monkeypatch.setattr(socket.socket, "connect", refused)
        monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield
    assert asked == [], "an attempt that was caught is an attempt as well"


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give toy folders, and the single file of each beside it."""
    root = tmp_path_factory.mktemp("single")
    make_tiny_random(root / "sd")
    make_tiny_sdxl(root / "sdxl", width_2=48)
    make_tiny_xl_refiner(root / "refiner")
    make_tiny_klein(root / "klein")
    writers = {"sd": sd_file, "sdxl": sdxl_file, "refiner": refiner_file, "klein": klein_file}
    for name, write in writers.items():
        write(root / name, root / f"{name}.safetensors")
    return root


def _studio(**options: Any) -> Studio:
    model = Model(**options)
    info = describe("m", model, {})
    return Studio(info, load_model("m", model, info.revision, {}))


def _pixels(studio: Studio, **row: Any) -> np.ndarray[Any, Any]:
    (task, (route, *_)), *_ = studio.info.family.tasks.items()
    by_strength = {"strength": 0.5} if "strength" in route.arguments else {}
    case = Case(model="", task=task, images=route.images[0], row={**by_strength, **row})
    columns = {name: value for name, value in base_row(case).items() if name != "num_frames"}
    return studio.one(columns).frames_FHWC


def _weights(pipeline: Any) -> dict[str, torch.Tensor]:
    modules = {name: module for name, module in pipeline.components.items() if isinstance(module, torch.nn.Module)}
    assert not any(module.training for module in modules.values()), "dropout would move pixels"
    return {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}


def _are_equal(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", ["sd", "sdxl", "refiner"])
def test_pixels_are_those_of_the_folder(toys: Path, name: str) -> None:
    folder = _studio(path=str(toys / name))
    single = _studio(path=str(toys / f"{name}.safetensors"), config=str(toys / name))

    made = _pixels(folder)
    assert single.info.single_file is not None
    assert module_parameters(single.info) == {key: n for key, n in folder.info.module_parameters.items() if n}
    assert single.info.family == folder.info.family
    assert (single.info.parameters, single.info.height) == (folder.info.parameters, folder.info.height)
    assert np.array_equal(made, _pixels(single))
    assert not np.array_equal(made, _pixels(single, prompt="a blue whale")), "the prompt moves nothing"


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_a_unet_behind_another_prefix_makes_the_folders_pixels(toys: Path, tmp_path: Path, name: str) -> None:
    weights = load_file(toys / f"{name}.safetensors")
    behind = {key.replace(PREFIX, "diffusion_model."): value for key, value in weights.items()}
    save_file(behind, tmp_path / "m.safetensors")
    single = _studio(path=str(tmp_path / "m.safetensors"), config=str(toys / name))

    assert np.array_equal(_pixels(_studio(path=str(toys / name))), _pixels(single))


@pytest.mark.parametrize("prefix", ["", PREFIX, "diffusion_model."])
def test_a_flux_transformer_with_the_folders_other_modules_makes_the_folders_pixels(
    toys: Path, tmp_path: Path, prefix: str
) -> None:
    folder = _studio(path=str(toys / "klein"))
    modules = ("vae", "text_encoder", "tokenizer")
    components = {name: Component(path=str(toys / "klein" / name)) for name in modules}
    weights = load_file(toys / "klein.safetensors")
    save_file({f"{prefix}{key}": value for key, value in weights.items()}, tmp_path / "klein.safetensors")
    file = {"path": str(tmp_path / "klein.safetensors"), "config": str(toys / "klein")}
    single = _studio(**file, components=components)

    row = {"negative_prompt": None}
    assert np.array_equal(_pixels(folder, **row), _pixels(single, **row))
    del components["text_encoder"]
    with pytest.raises(ModelError, match=r"comes without text_encoder \(Qwen3ForCausalLM\)"):
        _studio(**file, components=components)


@pytest.mark.parametrize("prefix", ["", PREFIX, "model."])
def test_an_aura_flow_transformer_makes_the_folders_pixels(tmp_path: Path, prefix: str) -> None:
    make_tiny_aura_flow(tmp_path / "aura")
    aura_flow_file(tmp_path / "aura", tmp_path / "plain.safetensors")
    weights = load_file(tmp_path / "plain.safetensors")
    save_file({f"{prefix}{key}": value for key, value in weights.items()}, tmp_path / "aura.safetensors")
    components = {name: Component(path=str(tmp_path / "aura" / name)) for name in ("vae", "text_encoder", "tokenizer")}

    folder = _studio(path=str(tmp_path / "aura"))
    file = {"path": str(tmp_path / "aura.safetensors"), "config": str(tmp_path / "aura")}
    single = _studio(**file, components=components)
    assert np.array_equal(_pixels(folder), _pixels(single))
    assert not np.array_equal(_pixels(folder), _pixels(single, prompt="a blue whale")), "the prompt moves nothing"


@pytest.mark.long
def test_a_flux_transformer_of_the_true_width_in_float8_is_read_exactly(toys: Path, tmp_path: Path) -> None:
    # diffusers splits single blocks at the published width alone (0.42.1), so a toy has one block of each kind.
    from diffusers import FluxTransformer2DModel

    width = {"num_attention_heads": 24, "attention_head_dim": 128, "axes_dims_rope": (16, 56, 56)}
    small = {"joint_attention_dim": 32, "pooled_projection_dim": 32, "in_channels": 16}
    layers = {"num_layers": 1, "num_single_layers": 1, "guidance_embeds": True}
    with torch.device("meta"):
        module = FluxTransformer2DModel(**width, **small, **layers)
    pattern = torch.randint(0, 256, (1_000_003,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)) & 0xB7
    weights, start = {}, 0
    for key, value in module.state_dict().items():
        repeats = -(-value.numel() // len(pattern)) + 1
        tensor = pattern.repeat(repeats)[start % len(pattern) :][: value.numel()]
        weights[key] = tensor.reshape(value.shape).view(torch.float8_e4m3fn)
        start += value.numel()
    save_file(flux_transformer(weights), tmp_path / "flux.safetensors")
    make_tiny_flux(tmp_path / "flux")
    config = tmp_path / "flux" / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **width, **small, **layers}))
    others = dict.fromkeys(("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    family = FAMILIES["Flux.1"]
    read = pipeline_from_file(tmp_path / "flux.safetensors", tmp_path / "flux", family, torch.bfloat16, others)

    found = read.transformer.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[key], weights[key].to(torch.bfloat16)) for key in weights)


@pytest.mark.long
def test_a_flux_transformer_of_the_true_width_makes_the_folders_pixels(tmp_path: Path) -> None:
    from diffusers import FluxTransformer2DModel

    make_tiny_flux(tmp_path / "flux")
    folder = tmp_path / "flux" / "transformer"
    width = {"num_attention_heads": 24, "attention_head_dim": 128, "axes_dims_rope": (16, 56, 56)}
    torch.manual_seed(0)
    config = {**FluxTransformer2DModel.load_config(folder), **width}
    module = FluxTransformer2DModel.from_config(config).to(torch.bfloat16)
    shutil.rmtree(folder)
    module.save_pretrained(folder)
    save_file(flux_transformer(module.state_dict()), tmp_path / "flux.safetensors")
    del module
    modules = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    components = {name: Component(path=str(tmp_path / "flux" / name)) for name in modules}
    row = {"negative_prompt": None}

    made = _pixels(_studio(path=str(tmp_path / "flux"), dtype="bfloat16"), **row)
    file = {"path": str(tmp_path / "flux.safetensors"), "config": str(tmp_path / "flux")}
    single = _studio(**file, components=components, dtype="bfloat16")
    assert np.array_equal(made, _pixels(single, **row))
    assert not np.array_equal(made, _pixels(single, **row, prompt="a blue whale")), "the prompt moves nothing"


def test_text_encoders_and_vae_of_a_file_for_comfyui_are_the_folders(tmp_path: Path) -> None:
    make_tiny_flux(tmp_path / "flux")
    folder = _studio(path=str(tmp_path / "flux"))
    base = folder.loaded._base
    names = {"text_encoder": "clip_l", "text_encoder_2": "t5xxl"}
    save_file(all_in_one(tmp_path / "flux", names), tmp_path / "all.safetensors")
    given = {"transformer": base.transformer}
    read = pipeline_from_file(tmp_path / "all.safetensors", tmp_path / "flux", folder.info.family, torch.float32, given)

    assert read.text_encoder_2 is not base.text_encoder_2
    assert _are_equal(_weights(read), _weights(base))


def test_a_file_of_wan_is_read_whole_with_the_place_of_the_last_picture(tmp_path: Path) -> None:
    folder = tmp_path / "wan"
    make_wan_flf2v(folder)
    weights = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    prefixed = {f"model.diffusion_model.{key}": value for key, value in wan_transformer(weights).items()}
    save_file(prefixed, tmp_path / "wan.safetensors")
    index = json.loads((folder / "model_index.json").read_text())
    others = {name: None for name, value in index.items() if isinstance(value, list) and name != "transformer"}
    family = FAMILIES["Wan 2.1 FLF2V"]
    read = pipeline_from_file(tmp_path / "wan.safetensors", folder, family, torch.float32, others)

    assert any("pos_embed" in key for key in weights)
    assert _are_equal(read.transformer.state_dict(), weights)
    half = pipeline_from_file(tmp_path / "wan.safetensors", folder, family, torch.bfloat16, others).transformer
    plain = diffusers.WanTransformer3DModel.from_pretrained(folder / "transformer", dtype=torch.bfloat16)
    for one, two in (
        (half.state_dict(), plain.state_dict()),
        (dict(half.named_buffers()), dict(plain.named_buffers())),
    ):
        assert {key: value.dtype for key, value in one.items()} == {key: value.dtype for key, value in two.items()}
        assert _are_equal(one, two)


def test_a_layer_that_diffusers_would_pass_over_is_refused_however_small(toys: Path, tmp_path: Path) -> None:
    weights = load_file(toys / "sd.safetensors")
    small = {"model.diffusion_model.out.3.weight": torch.ones(2, 2)}
    save_file({**weights, **small}, tmp_path / "m.safetensors")
    family = FAMILIES["Stable Diffusion 1.x/2.x"]

    with pytest.raises(ModelLoadFailed, match=r"m\.safetensors: its unet has \d+ numbers in layers, and by its config"):
        pipeline_from_file(tmp_path / "m.safetensors", toys / "sd", family, torch.float32, {})
    with pytest.raises(ModelError, match=r"has the keys of Stable Diffusion 1\.5, and 1 layers that it does not have"):
        _studio(path=str(tmp_path / "m.safetensors"), config=str(toys / "sd"))


def test_a_file_whose_weights_do_not_fit_its_config_is_refused(toys: Path, tmp_path: Path) -> None:
    weights = load_file(toys / "sd.safetensors")
    layer = "model.diffusion_model.middle_block.1.transformer_blocks"
    more = {key.replace(f"{layer}.0.", f"{layer}.1."): value.clone() for key, value in weights.items() if layer in key}
    save_file({**weights, **more}, tmp_path / "more.safetensors")
    with pytest.raises(
        ModelLoadFailed, match=r"more\.safetensors: its unet has \d+ numbers in layers, and by its config"
    ):
        _studio(path=str(tmp_path / "more.safetensors"), config=str(toys / "sd"))
    for name, lacks in (("time", "model.diffusion_model.time_embed.2.bias"), ("norm", "encoder.layers.0.layer_norm1")):
        save_file({key: value for key, value in weights.items() if lacks not in key}, tmp_path / f"{name}.safetensors")
        with pytest.raises(ModelLoadFailed, match=rf"{name}\.safetensors: (lacks|cannot be converted)"):
            _studio(path=str(tmp_path / f"{name}.safetensors"), config=str(toys / "sd"))


def test_a_campaign_of_a_single_file_by_command(
    toys: Path, tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    def pictures(output: Path) -> dict[str, np.ndarray[Any, Any]]:
        return {path.name.rsplit("-", 2)[0]: np.asarray(Image.open(path)) for path in output.glob("assets/*.png")}

    entry = {"path": str(toys / "sd.safetensors"), "config": str(toys / "sd"), "batch_size": 2}
    manifest = write_manifest(prompts(2))
    job = job_of(manifest, models={"tiny": entry})
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(job))

    def said(*arguments: str) -> Any:
        done = CliRunner().invoke(app, [*arguments, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    (listed,) = said("models", "list", str(path))["models"]
    (pin,) = said("models", "pin", str(path))["models"]
    assert (listed["family"], listed["laid_out_as"]) == ("Stable Diffusion 1.x/2.x", "Stable Diffusion 1.x/2.x")
    assert said("plan", str(path))["rows"] == {"new": 2}
    assert said("run", str(path), "--in-process")["counts"]["rows_ok"] == 2
    pinned = f"models.tiny.revision={pin['revision']}"
    assert said("plan", str(path), "--set", pinned)["rows"] == {"reused": 2}
    assert sdbatch.reproduce(job["output"], min(pictures(Path(job["output"]))), job=job).is_same_file
    folder = job_of(manifest, str(tmp_path / "folder"), models={"tiny": {"path": str(toys / "sd"), "batch_size": 2}})
    sdbatch.run(folder, in_process=True)
    made, expected = pictures(Path(job["output"])), pictures(tmp_path / "folder")
    assert made.keys() == expected.keys()
    assert all(np.array_equal(made[name], expected[name]) for name in made)


@pytest.mark.s3
def test_a_file_in_a_bucket_is_copied_once_and_loaded(s3_endpoint: str, toys: Path) -> None:
    store = open_store("s3://campaigns/single-file", {})
    store.put("sd.safetensors", (toys / "sd.safetensors").read_bytes())
    configs = open_store("s3://campaigns/single-file-configs", {})
    for file in (toys / "sd").rglob("*"):
        if file.is_file() and file.suffix != ".safetensors":
            configs.put(str(file.relative_to(toys / "sd")), file.read_bytes())
    remote = _studio(path=f"{store.url}/sd.safetensors", config=configs.url)

    assert np.array_equal(_pixels(remote), _pixels(_studio(path=str(toys / "sd"))))
