"""What a job lays over a model, known without torch: its class, its fit, its identity; and what may be quantised."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.resolved import rows_of
from support.toy_models import make_tiny_flux
from support.toy_parts import make_gguf

from sdbatch.checkpoints import SHIPPED, ModelInfo, describe, pins, refuse_shared_revisions
from sdbatch.checkpoints.components import GGUF_CLASSES
from sdbatch.checkpoints.gguf import TYPES, read_gguf
from sdbatch.errors import ModelError
from sdbatch.job import Model, parse_job
from sdbatch.plan.resolve import Resolver
from sdbatch.recipe import parse_recipe
from sdbatch.storage import open_store

TINY = SHIPPED["tiny-sd"]
INT8 = {"backend": "torchao", "type": "int8wo"}


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flux")
    make_tiny_flux(folder)
    make_gguf(folder / "transformer" / "diffusion_pytorch_model.safetensors", folder / "flux-Q8_0.gguf")
    return folder


def _describe(folder: Path, **entry: Any) -> ModelInfo:
    return describe("m", Model.model_validate({"path": str(folder), **entry}), {})


def _refusal(folder: Path, **entry: Any) -> str:
    with pytest.raises(ModelError) as refused:
        _describe(folder, **entry)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_each_component_moves_the_identity_and_the_models_own_weights_do_not(tmp_path: Path) -> None:
    own = Path(shutil.copytree(TINY, tmp_path / "own"))
    vae = Path(shutil.copytree(TINY / "vae", tmp_path / "vae"))
    plain = _describe(own)
    over = _describe(own, components={"vae": str(vae)})

    assert over.components == {"vae": "AutoencoderKL"}
    assert len({plain.revision, over.revision, over.base_revision, plain.base_revision}) == 3
    (own / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"nobody reads this")
    assert _describe(own, components={"vae": str(vae)}).revision == over.revision
    (vae / "config.json").write_text((vae / "config.json").read_text() + " ")
    assert _describe(own, components={"vae": str(vae)}).revision != over.revision


def test_the_order_of_components_moves_no_identity(flux: Path) -> None:
    parts = {name: str(flux / name) for name in ("vae", "transformer")}
    one, two = (_describe(flux, components=dict(order)) for order in (parts.items(), reversed(parts.items())))

    assert one.revision == two.revision


def test_a_file_is_known_by_itself_and_by_a_configuration_that_the_entry_names(flux: Path, tmp_path: Path) -> None:
    file = str(flux / "flux-Q8_0.gguf")
    shutil.copy(flux / "transformer" / "config.json", tmp_path / "config.json")
    plain = _describe(flux, components={"transformer": file})
    named = _describe(flux, components={"transformer": {"path": file, "config": str(tmp_path)}})

    assert plain.components == named.components == {"transformer": "FluxTransformer2DModel"}
    assert plain.component_revisions != named.component_revisions
    assert plain.quantized_by == {"transformer": "gguf"}
    assert plain.parameters == _describe(flux).parameters


def test_a_denoiser_of_another_folder_tells_the_native_size(tmp_path: Path) -> None:
    unet = Path(shutil.copytree(TINY / "unet", tmp_path / "unet"))
    config = json.loads((unet / "config.json").read_text())
    (unet / "config.json").write_text(json.dumps({**config, "sample_size": 2 * config["sample_size"]}))

    assert _describe(TINY, components={"unet": str(unet)}).height == 2 * _describe(TINY).height


@pytest.mark.parametrize(
    ("components", "says"),
    [
        ({"transfomer": "vae"}, "has no module 'transfomer'; did you mean transformer?"),
        ({"vae": "text_encoder"}, "is a CLIPTextModel; as vae the model takes AutoencoderKL"),
        ({"text_encoder": "text_encoder_2"}, "is a T5EncoderModel; as text_encoder the model takes CLIPTextModel"),
        ({"vae": "."}, "is a whole model (model_index.json); name its module: "),
        ({"vae": "nowhere"}, "no config.json there"),
        ({"vae": "nowhere.safetensors"}, "no nowhere.safetensors there"),
        ({"vae": "flux-Q8_0.gguf"}, "diffusers reads no AutoencoderKL from GGUF; name a folder"),
        ({"tokenizer": "flux-Q8_0.gguf"}, "a tokenizer is a folder with tokenizer_config.json, not one file"),
        ({"tokenizer": "tokenizer_2"}, "is a T5Tokenizer; as tokenizer the model takes CLIPTokenizer"),
    ],
)
def test_what_does_not_fit_is_named(components: dict[str, str], says: str, flux: Path) -> None:
    ((module, path),) = components.items()
    message = _refusal(flux, components={module: str(flux / path)})

    assert message.startswith(f"models.m.components.{module}: ")
    assert says in message


def test_a_lora_and_scaled_weights_are_told_from_a_module(flux: Path, tmp_path: Path) -> None:
    from numpy import zeros
    from safetensors.numpy import save_file

    save_file({"unet.to_q.lora_A.weight": zeros((2, 2))}, tmp_path / "lora.safetensors")
    save_file({"x.weight": zeros((2, 2)), "x.scale_weight": zeros(1)}, tmp_path / "scaled.safetensors")
    folder = Path(shutil.copytree(flux / "transformer", tmp_path / "whole"))
    for file in (folder / "diffusion_pytorch_model.safetensors", tmp_path / "whole.safetensors"):
        save_file({"x.weight": zeros((2, 2), dtype="int8"), "x.SCB": zeros(2)}, file)

    lora = _refusal(flux, components={"transformer": str(tmp_path / "lora.safetensors")})
    scaled = _refusal(flux, components={"transformer": str(tmp_path / "scaled.safetensors")})
    assert lora.endswith("is a LoRA; name it among the job's loras")
    assert "scaled.safetensors: holds weights with scales beside them" in scaled
    for whole in (folder, tmp_path / "whole.safetensors"):
        assert "holds weights in whole numbers (x.weight in I8)" in _refusal(
            flux, components={"transformer": str(whole)}
        )


def test_a_gguf_file_that_is_none_or_is_cut_is_one_line(flux: Path, tmp_path: Path) -> None:
    whole = (flux / "flux-Q8_0.gguf").read_bytes()
    for data, says in (
        (b"version https://git-lfs", "is a git-lfs pointer and not the file; run `git lfs pull`"),
        (
            b"<!DOCTYPE html>",
            "is not a GGUF file but a web page, as a download leaves that was refused: it begins with",
        ),
        (b"", "is not a GGUF file: it is empty; get the file again"),
        (whole[:-1000], f"was cut off: it has {len(whole) - 1000} bytes and by its header {len(whole)}; copy the file"),
        (whole[:400], "is cut off within its header; copy the file again"),
        (whole[:4] + b"\x09" + whole[5:], "is GGUF of version 9; read are 2, 3"),
        (whole[:8] + b"\xff" * 8 + whole[16:], "its header counts over 100000"),
    ):
        (tmp_path / "a.gguf").write_bytes(data)
        assert says in _refusal(flux, components={"transformer": str(tmp_path / "a.gguf")})


def test_the_header_of_gguf_says_what_the_package_says(flux: Path) -> None:
    from gguf import GGUFReader

    header = read_gguf(open_store(str(flux), {}), "flux-Q8_0.gguf")
    tensors = GGUFReader(str(flux / "flux-Q8_0.gguf")).tensors

    assert header.architecture == "flux"
    assert header.tensors == {one.name: (one.tensor_type.name, int(one.n_elements)) for one in tensors}


def test_our_tables_are_those_of_diffusers() -> None:
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
    from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES

    assert {int(one): one.name for one in SUPPORTED_GGUF_QUANT_TYPES} | {0: "F32", 1: "F16"} == {
        number: name for number, (name, *_) in TYPES.items()
    }
    assert SINGLE_FILE_LOADABLE_CLASSES.keys() >= GGUF_CLASSES


# --- quantising ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (
            {"quantize": {"transfomer": INT8}},
            "quantize.transfomer: the model has no transfomer; the nearest is transformer",
        ),
        ({"quantize": {"tokenizer": INT8}}, "a CLIPTokenizer has no weights; what can be quantised is text_encoder, "),
        ({"quantize": {"vae": INT8}}, "a AutoencoderKL is made of convolutions; what can be quantised is "),
        (
            {"num_gpus": 0, "quantize": {"transformer": {"backend": "bitsandbytes", "type": "nf4"}}},
            "GPUs alone, and num_gpus is 0; the nearest that a CPU computes with is {backend: torchao, type: int8wo}",
        ),
        (
            {"quantize": {"transformer": {"backend": "torchao", "type": "int4wo"}}},
            "int4wo computes in bfloat16 alone, and dtype is float32",
        ),
    ],
)
def test_what_cannot_be_quantised_is_refused_with_the_nearest(entry: dict[str, Any], says: str, flux: Path) -> None:
    message = _refusal(flux, **entry)

    assert message.startswith("models.m.quantize.")
    assert says in message


def test_what_is_quantised_already_is_neither_quantised_nor_cast(flux: Path, tmp_path: Path) -> None:
    shutil.copytree(flux / "transformer", tmp_path / "t")
    config = json.loads((tmp_path / "t" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "torchao"}
    (tmp_path / "t" / "config.json").write_text(json.dumps(config))

    for path, method in ((tmp_path / "t", "torchao"), (flux / "flux-Q8_0.gguf", "gguf")):
        components = {"transformer": str(path)}
        again = _refusal(flux, components=components, quantize={"transformer": INT8})
        cast = _refusal(flux, components=components, layerwise_casting="float8_e4m3fn")
        assert f"quantize.transformer: its weights were quantised already ({method})" in again
        assert f"layerwise_casting: the weights of transformer are quantised already ({method})" in cast


# --- keys ------------------------------------------------------------------------------------------------------------


def _key(folder: Path, **entry: Any) -> tuple[str, Any]:
    values = {"path": str(folder), "batch_size": 1, **entry}
    job = parse_job({"manifest": "m", "output": "o", "models": {"m": values}, "seed": 1})
    row = {"id": "a", "task": "text-to-image", "prompt": "x", "num_inference_steps": 1}
    models = {"m": describe("m", job.models["m"], {})}
    columns = {name: [value] for name, value in row.items()}
    resolved, faults = Resolver(job, models, lambda _: None, str).resolve(columns, 1, {})
    assert faults == []
    (found,) = rows_of(resolved, faults, 1)
    assert found is not None
    return found.request_key, parse_recipe(found.recipe)


def test_the_key_holds_each_component_its_numbers_and_how_it_is_quantised(flux: Path) -> None:
    vae = {"vae": {"path": str(flux / "vae")}}
    keys = [
        _key(flux, **entry)
        for entry in (
            {},
            {"components": vae},
            {"components": {"vae": {**vae["vae"], "dtype": "bfloat16"}}},
            {"quantize": {"transformer": INT8}},
            {"quantize": {"transformer": {**INT8, "type": "int8dq"}}},
            {"components": {"transformer": str(flux / "flux-Q8_0.gguf")}},
        )
    ]

    assert len({key for key, _ in keys}) == len(keys)
    assert [sorted(recipe.components) for _, recipe in keys] == [[], ["vae"], ["vae"], [], [], ["transformer"]]
    assert keys[2][1].accelerators == {"dtypes": {"vae": "bfloat16"}}
    assert keys[3][1].accelerators == {"quantize": {"transformer": INT8}}


def test_loras_over_a_flux_that_quanto_quantised_are_refused_where_they_are_planned(flux: Path) -> None:
    from sdbatch.checkpoints import loras_problem

    info = _describe(flux, quantize={"transformer": {"backend": "quanto", "type": "int8"}})
    assert "the nearest is {backend: torchao, type: int8wo}" in loras_problem(info.family, info.quantized_by)
    assert loras_problem(info.family, {"transformer": "torchao"}) == ""


# --- pins and revisions ----------------------------------------------------------------------------------------------


def test_a_pin_is_over_what_is_read_and_is_the_identity_that_was_planned(flux: Path) -> None:
    components = {"transformer": str(flux / "flux-Q8_0.gguf"), "vae": str(flux / "vae")}
    values = {"path": str(flux), "components": components}
    job = parse_job({"manifest": "m", "output": "o", "models": {"m": values}})
    found = {pin.place: pin.revision for pin in pins(job)}
    info = _describe(flux, components=components)

    assert found == {
        "models.m": info.base_revision,
        "models.m.components.transformer": info.component_revisions["transformer"],
        "models.m.components.vae": info.component_revisions["vae"],
    }
    pinned = {
        name: {"path": path, "revision": found[f"models.m.components.{name}"]} for name, path in components.items()
    }
    assert _describe(flux, revision=found["models.m"], components=pinned).revision == info.revision


def test_two_folders_of_one_commit_may_lack_what_is_laid_over(tmp_path: Path) -> None:
    bare = Path(shutil.copytree(TINY, tmp_path / "bare"))
    shutil.rmtree(bare / "vae")
    over = {"components": {"vae": str(TINY / "vae")}, "revision": "a" * 40}
    models = [_describe(bare, **over), _describe(TINY, **over)]

    refuse_shared_revisions(models, {})
    (bare / "unet" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"differ in unet/config\.json"):
        refuse_shared_revisions(models, {})


def test_check_of_components_imports_no_torch(flux: Path) -> None:
    entry = {
        "path": str(flux),
        "components": {"transformer": str(flux / "flux-Q8_0.gguf")},
        "quantize": {"text_encoder_2": INT8},
    }
    script = (
        "import json, sys; from sdbatch.job import Model; from sdbatch.checkpoints import describe; "
        f"info = describe('m', Model.model_validate(json.loads({json.dumps(json.dumps(entry))})), {{}}); "
        "sys.exit(str({'torch', 'gguf', 'torchao', 'diffusers'} & sys.modules.keys() or ''))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.stderr.strip() == ""
