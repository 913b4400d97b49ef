"""Of several files with one module's weights the loader's are chosen: listed, digested, counted, and no others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.revisions import PINNED
from support.weights import weights

from sdbatch.checkpoints import (
    SHIPPED,
    describe,
    digest_of,
    folder_files,
    identity,
    model_files,
    pins,
    variant_in,
)
from sdbatch.checkpoints.variants import WeightNames, chosen_word, is_weights, plain_path
from sdbatch.errors import ModelError
from sdbatch.job import Component, Defaults, Model, parse_job
from sdbatch.storage import open_store
from sdbatch.storage.digests import sha256_files

TINY = SHIPPED["tiny-sd"]
UNET, VAE, TEXT = (
    f"{folder}/{base}.safetensors"
    for folder, base in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    )
)
MODULES = (UNET, VAE, TEXT)


def _fp16(path: str) -> str:
    return path.replace(".safetensors", ".fp16.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a model folder of one's own."""
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def _add(folder: Path, *paths: str) -> None:
    """Write the same weights as a variant beside the plain files."""
    for path in paths:
        shutil.copy(folder / path, folder / _fp16(path))


def _read(folder: Path, **changes: Any) -> list[str]:
    """Return the weights that are read of a folder."""
    store = open_store(str(folder), {})
    model = Model(path=str(folder), **changes)
    paths = [entry.path for entry in model_files(store, json.loads(store.read("model_index.json")), model)]
    return sorted(path for path in paths if is_weights(path))


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words", "plain"),
    [
        ("model.safetensors", {""}, "model.safetensors"),
        ("model.fp16.safetensors", {"fp16"}, "model.safetensors"),
        ("diffusion_pytorch_model.non_ema.safetensors", {"non_ema"}, "diffusion_pytorch_model.safetensors"),
        ("model.safetensors.index.json", {""}, "model.safetensors.index.json"),
        ("model.safetensors.index.fp16.json", {"fp16"}, "model.safetensors.index.json"),
        ("model.safetensors.fp16.index.json", {"fp16"}, "model.safetensors.index.json"),
        ("model-00001-of-00002.safetensors", set(), "model-00001-of-00002.safetensors"),
        ("model.fp16-00001-of-00002.safetensors", set(), "model.fp16-00001-of-00002.safetensors"),
        ("model-00001-of-00002.fp16.safetensors", set(), "model-00001-of-00002.fp16.safetensors"),
        ("config.json", set(), "config.json"),
        ("pytorch_model.bin.index.json", set(), "pytorch_model.bin.index.json"),
    ],
)
def test_a_name_tells_its_variant(name: str, words: set[str], plain: str) -> None:
    assert WeightNames.of([name, "config.json"]).words == words
    assert plain_path(f"unet/{name}") == f"unet/{plain}"
    assert is_weights(name) is (name != "config.json")


def test_the_library_decides_between_one_file_and_its_shards() -> None:
    for base, chosen in (("diffusion_pytorch_model", ".safetensors.index.json"), ("model", ".safetensors")):
        names = WeightNames.of([f"{base}.safetensors", f"{base}.safetensors.index.json"])
        assert names.name_of("") == f"{base}{chosen}"


@pytest.mark.parametrize(
    ("there", "wanted", "dtype", "word"),
    [
        ({"unet": ["", "fp16"], "vae": ["", "fp16"]}, "auto", "float32", ""),
        ({"unet": ["", "fp16"], "vae": ["", "fp16"]}, "auto", "float16", "fp16"),
        ({"unet": ["", "fp16"], "vae": [""]}, "auto", "bfloat16", "fp16"),
        ({"unet": ["fp16"], "vae": ["fp16"]}, "auto", "float32", "fp16"),
        ({"unet": ["fp16"], "vae": ["", "fp16"]}, "auto", "float32", "fp16"),
        ({"unet": ["", "fp16"]}, "auto", "auto", ""),
        ({"unet": ["fp16"]}, "auto", "auto", "fp16"),
        ({"unet": [""]}, "auto", "float16", ""),
        ({"unet": ["", "ema"], "vae": [""]}, "ema", "float32", "ema"),
        ({"unet": ["", "fp16"]}, "", "float16", ""),
        ({"tokenizer": []}, "auto", "float16", ""),
        ({}, "fp16", "float16", "fp16"),
    ],
)
def test_auto_reads_half_precision_where_that_loses_nothing(
    there: Mapping[str, list[str]], wanted: str, dtype: str, word: str
) -> None:
    def names(words: list[str]) -> WeightNames:
        return WeightNames.of([f"model.{known}.safetensors".replace("..", ".") for known in words])

    assert chosen_word({module: names(words) for module, words in there.items()}, wanted, dtype, "s3://m") == word


# --- folders ----------------------------------------------------------------------------------------------------------


def test_of_several_variants_one_is_listed(folder: Path) -> None:
    _add(folder, *MODULES)
    (folder / "unet" / "diffusion_pytorch_model.non_ema.safetensors").write_bytes(b"large")
    (folder / "unet" / "diffusion_pytorch_model.bin.index.json").write_text("{}")
    (folder / "unet" / "pytorch_lora.safetensors").write_bytes(b"somebody's")

    assert _read(folder) == sorted(MODULES)
    assert _read(folder, dtype="float16") == sorted(map(_fp16, MODULES))
    assert _read(folder, dtype="float16", variant="") == sorted(MODULES)
    assert _read(folder, variant="fp16") == sorted(map(_fp16, MODULES))
    assert _read(folder, variant="non_ema") == sorted(
        {*MODULES, "unet/diffusion_pytorch_model.non_ema.safetensors"} - {UNET}
    )


def test_a_module_without_the_variant_is_read_from_its_plain_files(folder: Path) -> None:
    _add(folder, UNET)

    assert _read(folder, dtype="bfloat16") == sorted([_fp16(UNET), VAE, TEXT])


def test_a_variant_that_is_not_there_is_refused_with_those_that_are(folder: Path) -> None:
    _add(folder, UNET)

    with pytest.raises(ModelError, match=r"models\.m: .*: variant 'bf16' is not there; there are '', 'fp16'"):
        describe("m", Model(path=str(folder), variant="bf16"), {})


def test_of_shards_the_index_and_what_it_names_is_listed(folder: Path) -> None:
    for word in ("", ".fp16"):
        shards = [f"diffusion_pytorch_model{word}-0000{n}-of-00002.safetensors" for n in (1, 2)]
        for number, shard in enumerate(shards):
            (folder / "unet" / shard).write_bytes(weights({f"w{number}": [2]}, "F16"))
        index = {"metadata": {}, "weight_map": {f"w{number}": shard for number, shard in enumerate(shards)}}
        (folder / "unet" / f"diffusion_pytorch_model.safetensors.index{word}.json").write_text(json.dumps(index))
    (folder / UNET).unlink()

    base = "unet/diffusion_pytorch_model"
    assert [path for path in _read(folder) if path.startswith("unet")] == [
        f"{base}-00001-of-00002.safetensors",
        f"{base}-00002-of-00002.safetensors",
        f"{base}.safetensors.index.json",
    ]
    assert [path for path in _read(folder, dtype="float16") if path.startswith("unet")] == [
        f"{base}.fp16-00001-of-00002.safetensors",
        f"{base}.fp16-00002-of-00002.safetensors",
        f"{base}.safetensors.index.fp16.json",
    ]
    assert describe("m", Model(path=str(folder)), {}).parameters == 4


def test_a_folder_in_one_variant_is_known_by_what_it_always_was(folder: Path) -> None:
    for _ in range(2):  # plain files, then fp16 ones alone
        suffixes = (".json", ".safetensors", ".txt", ".model", ".jinja")
        files = [str(file.relative_to(folder)) for file in folder.rglob("*") if str(file).endswith(suffixes)]
        known = sha256_files(str(folder / file) for file in files)
        assert describe("m", Model(path=str(folder)), {}).revision == digest_of(
            {file: known[str(folder / file)] for file in files}
        )
        for path in MODULES:
            if (folder / path).exists():
                (folder / path).rename(folder / _fp16(path))


def test_the_variant_that_is_read_is_part_of_a_commits_identity(folder: Path) -> None:
    _add(folder, *MODULES)
    plain, half = (
        describe("m", Model(path=str(folder), revision=PINNED, dtype=dtype), {}) for dtype in ("float32", "float16")
    )
    stated = Model(
        path=str(folder),
        revision=PINNED,
        dtype="float16",
        family="Stable Diffusion 1.x/2.x",
        defaults=Defaults(height=64, width=64),
    )
    named = stated.model_copy(update={"variant": "fp16"})

    assert plain.revision == PINNED
    assert half.revision == identity(PINNED, variant="fp16") != PINNED
    assert describe("m", named, {}).revision == half.revision
    assert half.answers_to(describe("m", stated, {}).revision)  # which does not look into the folder
    assert not half.answers_to("f" * 40)


def test_a_pin_is_of_the_files_that_are_read(folder: Path, tmp_path: Path) -> None:
    _add(folder, *MODULES)
    control = tmp_path / "control"
    control.mkdir()
    (control / "config.json").write_text(json.dumps({"_class_name": "ControlNetModel"}))
    for word, value in (("", 1), (".fp16", 2)):
        (control / f"diffusion_pytorch_model{word}.safetensors").write_bytes(weights({"w": [value]}))
    entry: dict[str, Any] = {"path": str(folder), "controlnet": str(control)}
    found = {}
    for dtype in ("float32", "float16", "auto"):  # the plain files hold float16 themselves
        job = parse_job({"manifest": ".", "output": "o", "models": {"m": {**entry, "dtype": dtype}}})
        info = describe("m", job.models["m"], {})
        found[dtype] = [pin.revision for pin in pins(job)]
        assert found[dtype] == [info.base_revision, info.component_revisions["controlnet"]]

    assert found["float32"][0] != found["float16"][0]
    assert found["float32"][1] != found["float16"][1]
    assert found["auto"] == found["float16"]


def test_a_components_folder_is_read_in_one_variant_too(tmp_path: Path) -> None:
    for name in ("config.json", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"):
        (tmp_path / name).write_bytes(b"{}")
    store = open_store(str(tmp_path), {})

    assert variant_in(entry.path for entry in folder_files(store)) == ""
    half = [entry.path for entry in folder_files(store, dtype="float16")]
    assert half == ["config.json", "diffusion_pytorch_model.fp16.safetensors"]
    assert variant_in(half) == "fp16"


# --- dtype: auto ------------------------------------------------------------------------------------------------------


def test_auto_is_what_most_of_the_denoiser_is_stored_in(folder: Path) -> None:
    assert describe("m", Model(path=str(folder), dtype="auto"), {}).options.dtype == "float16"
    for stored, dtype in (("F32", "float32"), ("BF16", "bfloat16"), ("F8_E4M3", "bfloat16")):
        (folder / UNET).write_bytes(weights({"w": [64]}, stored))
        assert describe("m", Model(path=str(folder), dtype="auto"), {}).options.dtype == dtype


def test_auto_needs_a_folder_to_look_into() -> None:
    model = Model(
        path="s3://nowhere/m",
        revision=PINNED,
        dtype="auto",
        family="Stable Diffusion 1.x/2.x",
        defaults=Defaults(height=64, width=64),
    )
    with pytest.raises(ModelError, match=r"models\.m\.dtype: auto is read from the folder"):
        describe("m", model, {})
    for builtin in ("builtin:tiny-sd", "builtin:tiny-random"):
        assert describe("m", Model(path=builtin, dtype="auto"), {}).options.dtype in {"float16", "float32"}


def test_a_component_in_a_model_counts_by_its_own_dtype(folder: Path, tmp_path: Path) -> None:
    control = tmp_path / "control"
    control.mkdir()
    (control / "config.json").write_text(json.dumps({"_class_name": "ControlNetModel"}))
    for word, value in (("", 1), (".fp16", 2)):
        (control / f"diffusion_pytorch_model{word}.safetensors").write_bytes(weights({"w": [value]}))
    plain = describe("m", Model(path=str(folder), controlnet=Component(path=str(control))), {})
    own = Model(path=str(folder), controlnet=Component(path=str(control), dtype="float16"))

    assert describe("m", own, {}).component_revisions != plain.component_revisions
