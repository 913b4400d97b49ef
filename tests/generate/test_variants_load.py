"""Folders as people have them load: in half precision alone, in two variants, in shards, quantised beforehand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdbatch.checkpoints import SHIPPED, describe
from sdbatch.errors import ModelLoadFailed
from sdbatch.generate.load import load_model
from sdbatch.generate.load.copies import model_folder
from sdbatch.job import Component, Model
from sdbatch.storage import Store, open_store

TINY = SHIPPED["tiny-sd"]
MODULES = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a model folder of one's own."""
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def _plain(folder: Path, module: str) -> Path:
    return folder / module / f"{MODULES[module]}.safetensors"


def _half(folder: Path, module: str) -> Path:
    return folder / module / f"{MODULES[module]}.fp16.safetensors"


def _halve(folder: Path, *, keep_plain: bool) -> None:
    """Give every module an fp16 variant, whose weights are half as large, so that one can tell which was read."""
    for module in MODULES:
        tensors = load_file(_plain(folder, module))
        save_file({name: tensor / 2 for name, tensor in tensors.items()}, _half(folder, module), {"format": "pt"})
        if not keep_plain:
            _plain(folder, module).unlink()


def _scales(folder: str, **changes: Any) -> dict[str, float]:
    """Load a folder; return how large each module's weights are beside those of the plain files."""
    model = Model(path=folder, **changes)
    loaded = load_model("m", model, describe("m", model, {}).revision, {})
    return {module: round(_size(loaded, module) / _size(_loaded_tiny(), module), 3) for module in MODULES}


def _size(loaded: Any, module: str) -> float:
    size: float = sum(parameter.double().abs().sum().item() for parameter in getattr(loaded._base, module).parameters())
    return size


def _loaded_tiny(kept: list[Any] = []) -> Any:  # noqa: B006 -- loaded once
    if not kept:
        kept.append(load_model("m", Model(path=str(TINY)), describe("m", Model(path=str(TINY)), {}).revision, {}))
    return kept[0]


HALF = dict.fromkeys(MODULES, 0.5)
WHOLE = dict.fromkeys(MODULES, 1.0)


@pytest.mark.fault("F23", "a folder with fp16 files alone, in any dtype", "it loads")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "auto"])
def test_a_folder_in_half_precision_alone_loads_in_any_dtype(folder: Path, dtype: str) -> None:
    _halve(folder, keep_plain=False)
    (folder / "vae" / "LICENSE").write_text("a name without an ending")
    (folder / "unet" / "diffusion_pytorch_model.fp16.bin").write_bytes(b"a pickle")

    scales = _scales(str(folder), dtype=dtype)
    assert scales == pytest.approx(HALF, abs=0.01)


@pytest.mark.fault("F23", "a folder with plain and fp16 files", "16 bits read fp16, 32 bits the plain ones")
def test_of_two_variants_the_dtype_decides(folder: Path) -> None:
    _halve(folder, keep_plain=True)

    assert _scales(str(folder)) == WHOLE
    assert _scales(str(folder), dtype="float16") == pytest.approx(HALF, abs=0.01)
    assert _scales(str(folder), variant="fp16") == pytest.approx(HALF, abs=0.01)
    assert _scales(str(folder), dtype="float16", variant="") == pytest.approx(WHOLE, abs=0.01)


def test_a_module_without_the_variant_loads_from_its_plain_files(folder: Path) -> None:
    _halve(folder, keep_plain=True)
    _half(folder, "vae").unlink()
    _half(folder, "vae").with_suffix(".bin").write_bytes(b"a pickle")  # diffusers takes its name for the variant
    _plain(folder, "text_encoder").unlink()

    assert _scales(str(folder)) == pytest.approx({"unet": 0.5, "vae": 1.0, "text_encoder": 0.5}, abs=0.01)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_load_in_either_variant(folder: Path, variant: str | None) -> None:
    loaded = _loaded_tiny()._base
    for module in ("unet", "text_encoder"):
        shutil.rmtree(folder / module)
        size = "200KB" if module == "unet" else "100KB"
        getattr(loaded, module).save_pretrained(folder / module, max_shard_size=size, variant=variant)
        assert len(list((folder / module).glob("*-of-*.safetensors"))) > 1

    assert _scales(str(folder)) == WHOLE


@pytest.mark.s3
def test_of_a_bucket_one_variant_is_copied_and_loads(s3_endpoint: str, folder: Path) -> None:
    _halve(folder, keep_plain=True)
    (folder / "unet" / "model.onnx").write_bytes(b"another runtime's")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    store = _upload(folder, "s3://campaigns/variants/both")
    model = Model(path=store.url, dtype="float16")
    view = model_folder(model, describe("m", model, {}).revision, {})

    assert _scales(store.url, dtype="float16") == pytest.approx(HALF, abs=0.01)
    weights = [str(path.relative_to(view)) for path in view.rglob("*") if "model" in path.name and path.is_symlink()]
    assert sorted(weights) == ["model_index.json", *(str(_plain(Path(), module)) for module in sorted(MODULES))]
    copied = {(view / path).resolve() for path in weights}
    assert {path.name for path in copied} == {"model_index.json", *(_half(Path(), module).name for module in MODULES)}
    (copy,) = {path.parent for path in copied if path.name == "model_index.json"}
    assert {path.suffix for path in copy.rglob("*") if path.is_file()} == {".json", ".safetensors"}


def _upload(folder: Path, url: str) -> Store:
    store = open_store(url, {})
    for file in folder.rglob("*"):
        if file.is_file():
            store.put(str(file.relative_to(folder)), file.read_bytes())
    return store


def test_links_that_somebody_removed_are_laid_again(folder: Path) -> None:
    _halve(folder, keep_plain=False)
    model = Model(path=str(folder))
    view = model_folder(model, "", {})
    _plain(view, "unet").unlink()

    assert model_folder(model, "", {}) == view
    assert _plain(view, "unet").resolve() == _half(folder, "unet").resolve()


def test_a_component_loads_in_half_precision_alone(tmp_path: Path) -> None:
    from diffusers import ControlNetModel, UNet2DConditionModel

    ControlNetModel.from_unet(UNet2DConditionModel.from_pretrained(TINY / "unet")).save_pretrained(tmp_path)
    plain = tmp_path / "diffusion_pytorch_model.safetensors"
    plain.rename(tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    model = Model(path=str(TINY), controlnet=Component(path=str(tmp_path)))

    loaded = load_model("m", model, describe("m", model, {}).revision, {})
    assert type(loaded._components["controlnet"]).__name__ == "ControlNetModel"


def _quantized(folder: Path) -> None:
    """Quantise the UNet as its maker would, and write it down."""
    torchao = pytest.importorskip("torchao.quantization")
    from diffusers import TorchAoConfig, UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(
        TINY / "unet", quantization_config=TorchAoConfig(torchao.Int8WeightOnlyConfig()), dtype=torch.float32
    )
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet", safe_serialization=True)


def test_a_folder_that_was_quantised_beforehand_is_described_and_loads(folder: Path) -> None:
    plain = describe("m", Model(path=str(folder)), {})
    _quantized(folder)
    assert "quantization_config" in json.loads((folder / "unet" / "config.json").read_text())
    model = Model(path=str(folder), dtype="auto")
    found = describe("m", model, {})

    assert found.revision != plain.revision
    loaded = load_model("m", model, found.revision, {})
    assert any(
        "AffineQuantized" in type(weight).__name__ or "Int8" in type(weight).__name__
        for weight in loaded._base.unet.parameters()
    )


def test_weights_that_are_missing_are_refused_before_anything_is_read(folder: Path) -> None:
    model = Model(path=str(folder))
    revision = describe("m", model, {}).revision
    _plain(folder, "unet").write_bytes(_plain(folder, "unet").read_bytes()[:-1])

    with pytest.raises(ModelLoadFailed, match="was cut off"):
        load_model("m", model, revision, {})
