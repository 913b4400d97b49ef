"""A denoiser in one file, by the names and in the blocks that people's programs write, has the weights of the file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLFlux2, AutoencoderKLQwenImage, AutoencoderKLWan
from diffusers.loaders.single_file_utils import convert_ltx_vae_checkpoint_to_diffusers
from safetensors.torch import load_file, save_file
from support.original_layout import flux2_transformer, ldm_controlnet, ldm_unet, sd_file, vae_weights, wan_transformer
from support.toy_clips import make_motion_adapter, make_wan_flf2v, make_wan_t2v, make_wan_ti2v
from support.toy_models import (
    folders_of,
    make_tiny_controlnet,
    make_tiny_klein,
    make_tiny_qwen,
    make_tiny_sdxl,
    make_tiny_xl_controlnet,
)
from support.toy_newer import make_tiny_kandinsky
from support.toy_parts import loaded, pixels_of, write_gguf

from sdbatch.checkpoints.layouts import PREFIX
from sdbatch.errors import ModelError, ModelLoadFailed
from sdbatch.generate.load.file_tensors import tensors_of_other
from sdbatch.generate.random_weights import make_tiny_random

Tensors = Mapping[str, torch.Tensor]


class Toy(NamedTuple):
    """A toy, the name of its denoiser, and how the authors name that one's tensors."""

    make: Callable[[Path], None]
    denoiser: str
    by_authors: Callable[[Tensors], Tensors]


TOYS: Final = {
    "sd": Toy(make_tiny_random, "unet", ldm_unet),
    "sdxl": Toy(make_tiny_sdxl, "unet", ldm_unet),
    "klein": Toy(make_tiny_klein, "transformer", flux2_transformer),
    "qwen": Toy(make_tiny_qwen, "transformer", dict),
    "wan": Toy(make_wan_t2v, "transformer", wan_transformer),
    "wan-flf2v": Toy(make_wan_flf2v, "transformer", wan_transformer),
}
MAKERS: Final = {**{name: toy.make for name, toy in TOYS.items()}, "kandinsky": make_tiny_kandinsky}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return folders_of(MAKERS, tmp_path_factory)


def _weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    (file,) = (folder / TOYS[name].denoiser).glob("*.safetensors")
    return load_file(file)


def _over(folder: Path, name: str, file: Path) -> Any:
    return loaded({"path": str(folder), "components": {TOYS[name].denoiser: str(file)}})


def _arrays(tensors: Tensors) -> dict[str, np.ndarray[Any, Any]]:
    return {key: value.numpy() for key, value in tensors.items()}


def _numbers(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of a module as numbers."""
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    return {key: dequantize_gguf_tensor(value) for key, value in module.state_dict().items()}


@pytest.mark.parametrize("ending", ["safetensors", "gguf"])
@pytest.mark.parametrize("prefix", ["", PREFIX, "diffusion_model."], ids=["bare", "prefixed", "of ComfyUI"])
@pytest.mark.parametrize("name", TOYS)
def test_a_denoiser_by_its_authors_names_has_the_weights_of_its_file(
    name: str, prefix: str, ending: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, own = folders(name), _weights(folders(name), name)
    tensors = {f"{prefix}{key}": value.contiguous() for key, value in TOYS[name].by_authors(own).items()}
    beside = {f"{key}.weight": torch.ones(4, 4) for key in ("first_stage_model.a", "text_encoders.b")}
    file = tmp_path / f"m.{ending}"
    if ending == "gguf":
        write_gguf(_arrays({**tensors, **beside}), file)
    else:
        save_file({**tensors, **beside}, file)
    read = _numbers(getattr(_over(folder, name, file)._base, TOYS[name].denoiser))

    assert read.keys() == own.keys()
    assert all(read[key].shape == value.shape for key, value in own.items())
    bound = 0.0 if ending == "safetensors" else 0.01
    assert all(float((read[key] - value).abs().max()) <= bound * float(value.abs().max()) for key, value in own.items())


@pytest.mark.parametrize("name", ["wan", "kandinsky"])
def test_a_denoiser_in_16_bits_keeps_in_float32_what_its_folder_keeps(
    name: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    file = tmp_path / "m.safetensors"
    (own,) = (folders(name) / "transformer").glob("*.safetensors")
    save_file(wan_transformer(load_file(own)) if name == "wan" else load_file(own), file)
    entry = {"path": str(folders(name)), "dtype": "bfloat16"}
    plain = loaded(entry)._base.transformer
    read = loaded({**entry, "components": {"transformer": str(file)}})._base.transformer

    assert any(value.dtype == torch.float32 for value in plain.state_dict().values())
    for tensors_of in (torch.nn.Module.state_dict, lambda module: dict(module.named_buffers())):
        of_file, of_folder = tensors_of(read), tensors_of(plain)
        assert {key: value.dtype for key, value in of_file.items()} == {
            key: value.dtype for key, value in of_folder.items()
        }
        assert all(torch.equal(of_file[key], value) for key, value in of_folder.items())


@pytest.mark.parametrize("prefix", ["", PREFIX], ids=["bare", "prefixed"])
def test_a_unet_kept_in_rows_of_256_numbers_makes_the_picture(
    prefix: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = folders("sd")
    own = ldm_unet(_weights(folder, "sd"))
    tensors = {f"{prefix}{key}": value.numpy() for key, value in own.items()}
    file = write_gguf(tensors, tmp_path / "m.gguf", "sd1", in_rows=True)
    read = _over(folder, "sd", file)

    plain = pixels_of(loaded({"path": str(folder)}))
    assert np.abs(pixels_of(read) - plain).max() < 0.02
    assert np.abs(pixels_of(read, prompt="a whale") - plain).max() > 0.02, "the prompt moves nothing"


@pytest.mark.parametrize(("name", "row"), [("sd", {}), ("wan", {"num_frames": 5})])
def test_what_is_packed_outside_of_linear_layers_is_computed_with(
    name: str, row: dict[str, Any], folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = folders(name)
    tensors = _arrays(TOYS[name].by_authors(_weights(folder, name)))
    file = write_gguf(tensors, tmp_path / "m.gguf", name, rest="BF16")

    difference = np.abs(pixels_of(_over(folder, name, file), **row) - pixels_of(loaded({"path": str(folder)}), **row))
    assert difference.max() < 0.05


@pytest.mark.parametrize("ending", ["safetensors", "gguf"])
def test_layers_that_the_model_has_not_are_not_passed_over(
    ending: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    tensors = dict(wan_transformer(_weights(folders("wan"), "wan")))
    tensors |= {
        key.replace("blocks.0.", "vace_blocks.0."): value.clone() for key, value in tensors.items() if ".ffn." in key
    }
    file = tmp_path / f"m.{ending}"
    if ending == "gguf":
        write_gguf(_arrays(tensors), file, "wan")
    else:
        save_file(tensors, file)

    with pytest.raises(ModelLoadFailed, match=rf"m\.{ending}: its transformer has \d+ numbers in layers, and by the"):
        _over(folders("wan"), "wan", file)


def _wan_vae_by_authors(weights: Tensors) -> dict[str, torch.Tensor]:
    """Return a VAE of Wan 2.1, whose blocks are numbered one after the other."""
    parts = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6"}
    ends = {"conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2", "down_blocks": "downsamples"}
    middle = {"resnets.0": "middle.0", "attentions.0": "middle.1", "resnets.1": "middle.2"}
    found = {}
    for key, value in weights.items():
        name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda at: f"upsamples.{4 * int(at[1]) + int(at[2])}", key)
        name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda at: f"upsamples.{4 * int(at[1]) + 3}", name)
        for ours, theirs in parts.items():
            name = re.sub(rf"\.{ours}\.", f".{theirs}.", name)
        for ours, theirs in ends.items():
            name = name.replace(f"coder.{ours}.", f"coder.{theirs}.")
        for ours, theirs in middle.items():
            name = name.replace(f"mid_block.{ours}.", f"{theirs}.")
        name = re.sub(r"^quant_conv", "conv1", re.sub(r"^post_quant_conv", "conv2", name))
        found[name.replace(".conv_shortcut.", ".shortcut.")] = value.contiguous()
    return found


@pytest.mark.parametrize("by_authors", [False, True])
def test_a_vae_of_qwen_image_is_read_by_its_authors_names_which_are_wans(
    by_authors: bool, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    vae = AutoencoderKLQwenImage(base_dim=8, z_dim=4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    vae.save_config(tmp_path)
    own = vae.state_dict()
    save_file(_wan_vae_by_authors(own) if by_authors else own, tmp_path / "vae.safetensors")
    entry = {"path": str(tmp_path / "vae.safetensors"), "config": str(tmp_path)}
    read = loaded({"path": str(folders("qwen")), "components": {"vae": entry}})._base.vae.state_dict()

    assert read.keys() == own.keys()
    assert all(torch.equal(read[key], own[key]) for key in own)


@pytest.mark.parametrize("prefix", ["", "vae."])
def test_a_vae_of_flux_2_is_read_by_its_authors_names(
    prefix: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    config = json.loads((folders("klein") / "vae" / "config.json").read_text())
    vae = AutoencoderKLFlux2.from_config({**config, "use_quant_conv": True, "use_post_quant_conv": True})
    vae.save_config(tmp_path)
    own = vae.state_dict()
    tensors = {}
    for key, value in vae_weights({key: value for key, value in own.items() if not key.startswith("bn.")}, "").items():
        half = {"quant_conv": "encoder.", "post_quant_conv": "decoder."}.get(key.partition(".")[0], "")
        tensors[f"{prefix}{half}{key}"] = value
    tensors |= {f"{prefix}{key}": value for key, value in own.items() if key.startswith("bn.")}
    save_file(tensors, tmp_path / "flux2-vae.safetensors")
    entry = {"path": str(tmp_path / "flux2-vae.safetensors"), "config": str(tmp_path)}
    read = loaded({"path": str(folders("klein")), "components": {"vae": entry}})._base.vae.state_dict()

    assert f"{prefix}decoder.post_quant_conv.weight" in tensors
    assert read.keys() == own.keys()
    assert all(torch.equal(read[key], value) for key, value in own.items())


def _renamed(weights: Tensors, names: Mapping[str, str]) -> dict[str, torch.Tensor]:
    def named(key: str) -> str:
        for one, other in names.items() if "attn" in key or "attentions" in key else ():
            key = key.replace(f".{one}.", f".{other}.")
        return key

    return {named(key): value for key, value in weights.items()}


FIRST_NAMES: Final = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
LEFT_NAMES: Final = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


@pytest.mark.parametrize(
    "names",
    [
        lambda weights: _renamed(weights, FIRST_NAMES),
        lambda weights: {f"vae.{key}": value for key, value in weights.items()},
        lambda weights: _renamed(vae_weights(weights, ""), LEFT_NAMES),
        lambda weights: _renamed(vae_weights(weights, "first_stage_model."), LEFT_NAMES),
    ],
    ids=["diffusers' first names", "behind a prefix", "half converted", "half converted, behind a prefix"],
)
def test_a_vae_by_names_of_other_versions_is_read(
    names: Callable[[Tensors], Tensors], folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = folders("sdxl")
    own = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    save_file({key: value.contiguous() for key, value in names(own).items()}, tmp_path / "vae.safetensors")

    read = loaded({"path": str(folder), "components": {"vae": str(tmp_path / "vae.safetensors")}})
    assert np.array_equal(pixels_of(read), pixels_of(loaded({"path": str(folder)})))


def test_a_whole_model_with_a_half_converted_vae_is_read(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = folders("sd")
    sd_file(folder, tmp_path / "sd.safetensors")
    renamed = _renamed(load_file(tmp_path / "sd.safetensors"), LEFT_NAMES)
    vae = {key: value for key, value in renamed.items() if key.startswith("first_stage_model.")}
    others = {key: value for key, value in load_file(tmp_path / "sd.safetensors").items() if "first_stage" not in key}
    save_file({**others, **vae}, tmp_path / "half.safetensors")
    entry = {"path": str(tmp_path / "half.safetensors"), "config": str(folder), "dtype": "float32"}

    assert np.array_equal(pixels_of(loaded(entry)), pixels_of(loaded({"path": str(folder)})))


def test_a_vae_of_ltx_keeps_the_prefix_by_which_diffusers_knows_it() -> None:
    weights = {"vae.encoder.conv_in.conv.weight": torch.ones(1), "model.diffusion_model.proj.weight": torch.ones(1)}
    own = tensors_of_other("vae", weights)

    assert own.keys() == {"vae.encoder.conv_in.conv.weight"}
    assert convert_ltx_vae_checkpoint_to_diffusers({**own, "vae.encoder.conv_out.conv.weight": torch.ones(1, 1)}).keys()


def _wan_22_vae_by_authors(weights: Tensors) -> dict[str, torch.Tensor]:
    """Return a VAE of Wan 2.2, whose blocks lie one in another; the rest is named as that of Wan 2.1."""
    found = {}
    for key, value in weights.items():
        name = re.sub(r"(down|up)_blocks\.(\d)\.resnets\.(\d)", r"\1samples.\2.\1samples.\3", key)
        name = re.sub(r"down_blocks\.(\d)\.downsampler", r"downsamples.\1.downsamples.2", name)
        found[re.sub(r"up_blocks\.(\d)\.upsampler", r"upsamples.\1.upsamples.3", name)] = value
    return _wan_vae_by_authors(found)


def test_a_vae_of_wan_22_is_read_by_its_authors_names(tmp_path: Path) -> None:
    make_wan_ti2v(tmp_path / "wan")
    with torch.device("meta"):
        size = {"base_dim": 8, "decoder_base_dim": 16, "z_dim": 16, "in_channels": 12, "out_channels": 12}
        vae = AutoencoderKLWan(**size, is_residual=True, patch_size=2, scale_factor_spatial=16)
    vae.save_config(tmp_path)
    own = {key: torch.rand(value.shape) for key, value in vae.state_dict().items()}
    tensors = _wan_22_vae_by_authors(own)
    assert {"decoder.upsamples.0.upsamples.3.time_conv.weight", "conv2.weight", "encoder.head.2.bias"} <= tensors.keys()
    assert {"encoder.downsamples.1.downsamples.0.shortcut.bias"} <= tensors.keys()
    save_file(tensors, tmp_path / "vae.safetensors")
    entry = {"path": str(tmp_path / "vae.safetensors"), "config": str(tmp_path)}
    read = loaded({"path": str(tmp_path / "wan"), "components": {"vae": entry}})._base.vae.state_dict()

    assert read.keys() == own.keys()
    assert all(torch.equal(read[key], own[key]) for key in own)


_OF_MOTION: Final = {
    "norm1": "norms.0",
    "norm2": "norms.1",
    "norm3": "ff_norm",
    "attn1": "attention_blocks.0",
    "attn2": "attention_blocks.1",
}


@pytest.mark.parametrize("prefix", ["", "control_model."])
@pytest.mark.parametrize(("name", "make"), [("sd", make_tiny_controlnet), ("sdxl", make_tiny_xl_controlnet)])
def test_a_controlnet_is_read_by_its_authors_names(
    name: str, make: Callable[[Path], None], prefix: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    make(tmp_path)
    own = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    file = tmp_path / "net.safetensors"
    save_file({key: value.contiguous() for key, value in ldm_controlnet(own, prefix).items()}, file)

    model = loaded({"path": str(folders(name)), "controlnet": {"path": str(file), "config": str(tmp_path)}})
    read = model._components["controlnet"].state_dict()
    assert read.keys() == own.keys()
    assert all(torch.equal(read[key], value) for key, value in own.items())


def test_a_motion_adapter_is_read_by_its_authors_names_with_their_tables_of_frames(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    make_motion_adapter(tmp_path / "motion")
    own = load_file(tmp_path / "motion" / "diffusion_pytorch_model.safetensors")
    tensors = {}
    for key, value in own.items():
        name = re.sub(r"(motion_modules\.\d)\.", r"\1.temporal_transformer.", key)
        for ours, theirs in _OF_MOTION.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
        tensors[name] = value
        if key.endswith(("attn1.to_q.weight", "attn2.to_q.weight")):
            tensors[name.replace("to_q.weight", "pos_encoder.pe")] = torch.ones(1, 32, len(value))
    save_file(tensors, tmp_path / "mm_sd15.safetensors")
    entry = {"path": str(tmp_path / "mm_sd15.safetensors"), "config": str(tmp_path / "motion")}
    read = loaded({"path": str(folders("sd")), "components": {"motion_adapter": entry}})
    weights = read._components["motion_adapter"].state_dict()

    assert all(torch.equal(weights[key], value) for key, value in own.items())
    assert weights.keys() == own.keys()


def test_a_file_that_lacks_weights_is_told_so(folders: Callable[[str], Path], tmp_path: Path) -> None:
    tensors = wan_transformer(_weights(folders("wan"), "wan"))
    save_file({key: value for key, value in tensors.items() if ".ffn." not in key}, tmp_path / "m.safetensors")

    with pytest.raises(ModelLoadFailed, match=r"m\.safetensors: lacks weights that a WanTransformer3DModel of its"):
        _over(folders("wan"), "wan", tmp_path / "m.safetensors")


def test_a_shape_that_is_not_the_tensors_is_refused(folders: Callable[[str], Path], tmp_path: Path) -> None:
    tensors = _arrays(ldm_unet(_weights(folders("sd"), "sd")))
    file = write_gguf(tensors, tmp_path / "m.gguf", "sd1", in_rows=True)
    name = b"comfy.gguf.orig_shape.input_blocks.1.0.in_layers.2.weight"
    data = file.read_bytes()
    place = data.index(name) + len(name) + 4 + 4 + 8
    file.write_bytes(data[:place] + (7).to_bytes(4, "little") + data[place + 4 :])

    with pytest.raises(ModelError, match=r"is damaged: tensor 'input_blocks\.1\.0\.in_layers\.2\.weight' has \d+ num"):
        _over(folders("sd"), "sd", file)
