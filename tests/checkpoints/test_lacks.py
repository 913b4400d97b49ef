"""What a folder lacks to be loaded is named where a job is checked: file, what is wrong, remedy."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.proxy import faulty_proxy
from support.weights import POINTER, weights

import sdbatch
from sdbatch.checkpoints import SHIPPED, describe, describe_lora
from sdbatch.errors import ModelError
from sdbatch.job import Component, Lora, Model
from sdbatch.storage import open_store

TINY = SHIPPED["tiny-sd"]
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
Spoil = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a model folder of one's own."""
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def _faults(folder: Path | str, **changes: object) -> list[str]:
    with pytest.raises(ModelError) as caught:
        describe("m", Model(path=str(folder), **changes), {}, with_revision=False)  # type: ignore[arg-type]
    return str(caught.value).splitlines()


def _shards(folder: Path) -> None:
    (folder / UNET).unlink()
    shard = "diffusion_pytorch_model-00001-of-00002.safetensors"
    (folder / "unet" / shard).write_bytes(weights({"a": [1]}))
    index = {"weight_map": {"a": shard, "b": shard.replace("00001-of", "00002-of")}}
    (folder / f"{UNET}.index.json").write_text(json.dumps(index))


def _pickle(folder: Path) -> None:
    (folder / TEXT).rename(folder / "text_encoder" / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(
            lambda folder: (folder / UNET).unlink(),
            r"/unet: has no weights; copy the \.safetensors files there",
            marks=pytest.mark.fault("F24", "a component without weights", "check says so"),
        ),
        pytest.param(
            _pickle,
            r"/text_encoder: has no \.safetensors file, only pytorch_model\.bin, which is a pickle .* "
            r"save it again with `save_pretrained\(\.\.\., safe_serialization=True\)`",
            marks=pytest.mark.fault("F24", "a component with .bin alone", "check says how to convert it"),
        ),
        pytest.param(
            lambda folder: (folder / UNET).write_bytes(POINTER),
            rf"/{UNET}: is a git-lfs pointer and not the file; run `git lfs pull`",
            marks=pytest.mark.fault("F24", "a git-lfs pointer in place of weights", "check says so"),
        ),
        (lambda folder: (folder / "tokenizer/tokenizer.json").write_bytes(POINTER), r"/tokenizer\.json: is a git-lfs"),
        pytest.param(
            lambda folder: (folder / UNET).write_bytes((folder / UNET).read_bytes()[:-7]),
            rf"/{UNET}: was cut off: it has \d+ bytes and by its header \d+; copy the file again",
            marks=pytest.mark.fault("F24", "weights shorter than their header says", "check says both lengths"),
        ),
        pytest.param(
            lambda folder: (folder / UNET).write_bytes((folder / UNET).read_bytes()[:100]),
            rf"/{UNET}: was cut off: it has 100 bytes and its header alone has \d+",
            marks=pytest.mark.fault("F24", "a header that is cut", "check says so, with both lengths"),
        ),
        (lambda folder: (folder / UNET).write_bytes(weights({"w": [3]}) + b"more"), "is longer than its weights"),
        (lambda folder: (folder / UNET).write_bytes(b""), "is not a safetensors file: it is empty"),
        (
            _shards,
            r"/unet: \S+\.safetensors\.index\.json names \S+-00002-of-00002\.safetensors, which is not there; copy it",
        ),
        (
            lambda folder: shutil.rmtree(folder / "text_encoder"),
            r"/text_encoder: model_index\.json names this component \(CLIPTextModel\), and there is no such folder",
        ),
        (lambda folder: shutil.rmtree(folder / "tokenizer"), r"/tokenizer: model_index\.json names this component"),
        (lambda folder: (folder / "vae" / "config.json").unlink(), r"/vae: has no config\.json; copy it there"),
        (
            lambda folder: (folder / UNET).rename(folder / UNET.replace(".safe", ".bf16.safe")),
            r"/unet: has weights as variant bf16 alone; say variant: bf16",
        ),
        (
            lambda folder: (folder / UNET).write_bytes(weights({"a.weight": [2, 2]}, "U8")),
            rf"/{UNET}: holds weights in whole numbers \(a\.weight in U8\)",
        ),
        (
            lambda folder: (folder / TEXT).write_bytes(weights({"a.weight": [2, 2], "a.weight_scale": []}, "F8_E4M3")),
            rf"/{TEXT}: holds weights with scales beside them, which diffusers does not apply",
        ),
    ],
)  # fmt: skip
def test_each_fault_is_one_line_with_file_and_remedy(folder: Path, spoil: Spoil, said: str) -> None:
    describe("m", Model(path=str(folder)), {})
    spoil(folder)

    (line,) = _faults(folder)
    assert line.startswith(f"models.m: {folder}")
    assert re.search(said, line), line


def test_weights_that_their_configuration_calls_quantised_may_be_whole_numbers(folder: Path) -> None:
    (folder / UNET).write_bytes(weights({"a.weight": [2, 2], "a.weight_scale": [1]}, "U8"))
    config = folder / "unet" / "config.json"
    stated = {"quantization_config": {"quant_method": "torchao"}}
    config.write_text(json.dumps({**json.loads(config.read_text()), **stated}))

    assert describe("m", Model(path=str(folder)), {}, with_revision=False).quantized_by == {"unet": "torchao"}


def test_all_faults_are_told_at_once(folder: Path) -> None:
    (folder / UNET).unlink()
    (folder / TEXT).write_bytes(POINTER)
    shutil.rmtree(folder / "tokenizer")

    assert [line.partition(f"{folder}/")[2].split(":")[0] for line in _faults(folder)] == [TEXT, "tokenizer", "unet"]


def test_a_checker_that_is_not_asked_for_may_be_missing(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))

    describe("m", Model(path=str(folder)), {})
    (line,) = _faults(folder, safety_checker=True)
    assert "/safety_checker: model_index.json names this component (StableDiffusionSafetyChecker)" in line


def test_components_and_loras_are_looked_at_too(folder: Path, tmp_path: Path) -> None:
    control = tmp_path / "control"
    control.mkdir()
    (control / "config.json").write_text(json.dumps({"_class_name": "ControlNetModel"}))
    (control / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    (tmp_path / "ink.safetensors").write_bytes(POINTER)

    (line,) = _faults(folder, controlnet=Component(path=str(control)))
    assert line.startswith(
        f"models.m.controlnet: {control}: has no .safetensors file, only diffusion_pytorch_model.bin"
    )
    with pytest.raises(ModelError, match=rf"loras\.ink: {tmp_path}/ink\.safetensors: is a git-lfs pointer"):
        describe_lora("ink", Lora(path=str(tmp_path), base="Stable Diffusion XL", weight_name="ink.safetensors"), {})


@pytest.mark.s3
def test_of_a_bucket_headers_alone_are_read(s3_endpoint: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("s3://campaigns/lacks/model", {})
    for file in folder.rglob("*"):
        if file.is_file():
            store.put(str(file.relative_to(folder)), file.read_bytes())
    store.put(TEXT, store.read(TEXT)[:-1])
    store.put("vae/diffusion_pytorch_model.safetensors", weights({"w": [8 << 20]}))
    with faulty_proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        (line,) = _faults(store.url)
        gets = [path for method, path, _ in proxy.seen if method == "GET" and path.endswith(".safetensors")]
        sent = proxy.sent.total()

    assert f"{store.url}/{TEXT}: was cut off" in line
    assert len(gets) == 3
    assert sent < 3 << 20  # of 30 MiB


def test_check_tells_it_without_torch(folder: Path, tmp_path: Path) -> None:
    (folder / UNET).write_bytes(POINTER)
    job = tmp_path / "job.yaml"
    job.write_text(json.dumps({"manifest": "m", "output": "o", "models": {"m": {"path": str(folder)}}}))
    script = (
        "import sys; from sdbatch import api, errors\n"
        "try: api.list_models(sys.argv[1])\n"
        "except errors.ModelError as error: print(error)\n"
        "print(sorted({'torch', 'diffusers', 'ray'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(job)], capture_output=True, text=True)

    assert "is a git-lfs pointer" in done.stdout, done.stderr
    assert done.stdout.endswith("[]\n")


@pytest.mark.fault("F12", "a DoRA or LoHa of kohya's, before any model loads", "refused by name, with its form")
@pytest.mark.parametrize(("part", "form"), [("dora_scale", "DoRA"), ("hada_w1_a", "LoHa")])
@pytest.mark.parametrize("partial", ["refuse", "allow"])
def test_a_form_of_which_nothing_is_applied_is_refused_at_check(
    part: str, form: str, partial: str, tmp_path: Path
) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    plain = {f"{layer}.{name}.weight": np.zeros((4, 4), np.float32) for name in ("lora_down", "lora_up")}
    own = {f"{layer}.{part}": np.zeros((4, 1), np.float32)}
    tensors = {**plain, **own} if form == "DoRA" else own
    save_file(tensors, tmp_path / "ink.safetensors")
    lora = Lora.model_validate(
        {"path": str(tmp_path), "base": "Stable Diffusion XL", "weight_name": "ink.safetensors", "partial": partial}
    )

    said = f"is a {form} file: of its {len(tensors)} keys diffusers applies none of the 1 with "
    assert describe_lora("ink", lora, {}).left_out.startswith(said)
    job = {"manifest": str(tmp_path / "m.jsonl"), "output": str(tmp_path / "out"), "seed": 1}
    models = {"tiny": {"path": "builtin:tiny-random"}}
    (tmp_path / "m.jsonl").write_text('{"id": "a", "prompt": "p"}\n')
    job |= {"models": models, "loras": {"ink": lora.model_dump()}, "defaults": {"task": "text-to-image"}}
    with pytest.raises(ModelError, match=f"^loras.ink: {said}"):
        sdbatch.check(job)
    save_file(plain, tmp_path / "ink.safetensors")
    assert sdbatch.check(job).rows == 1
