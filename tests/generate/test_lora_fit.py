"""A LoRA is applied whole, as plain diffusers applies it, or refused by its name; never in part without a word."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from support.revisions import PINNED
from support.toy_loras import CLIP, Tensors, dotted, kohya, layers_of, write_lora
from support.toy_models import make_tiny_sdxl

from sdbatch.checkpoints import content_revision, lora_files
from sdbatch.errors import LoraRefused
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Lora, Model
from sdbatch.recipe import recipe_from
from sdbatch.storage import open_store

CLASSES = {"sd": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}
TEXT_PREFIXES = {"sd": ("lora_te",), "sdxl": ("lora_te1", "lora_te2")}
WEIGHT = 0.8


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    set_threads(1)
    made = {}
    for name, make in (("sd", make_tiny_random), ("sdxl", make_tiny_sdxl)):
        made[name] = tmp_path_factory.mktemp(name)
        make(made[name])
    return made


@pytest.fixture(scope="module")
def plain(folders: dict[str, Path]) -> Callable[[str], Any]:
    """Return plain diffusers' pipelines."""
    return lambda kind: diffusers.DiffusionPipeline.from_pretrained(str(folders[kind]))


def _text_layers(encoder: Any) -> dict[str, tuple[int, int]]:
    return {f"text_model.{path.removeprefix('text_model.')}": shape for path, shape in layers_of(encoder, CLIP).items()}


def _unet(pipeline: Any, **how: Any) -> Tensors:
    return kohya(layers_of(pipeline.unet), "lora_unet", seed=1, **how)


def _texts(kind: str, pipeline: Any) -> Tensors:
    encoders = (pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None))
    tensors: Tensors = {}
    for seed, (prefix, encoder) in enumerate(zip(TEXT_PREFIXES[kind], encoders, strict=False)):
        tensors |= kohya(_text_layers(encoder), prefix, seed=2 + seed, strength=1.0, alpha=lambda _: 4.0)
    return tensors


def _plain_pixels(pipeline: Any, file: Path | None) -> Any:
    if file:
        # A name of one letter would also stand in names of the text encoder's own weights, which are then drawn anew.
        pipeline.load_lora_weights(
            str(file.parent), weight_name=file.name, adapter_name="probe_adapter", use_safetensors=True
        )
        pipeline.set_adapters(["probe_adapter"], [WEIGHT])
    images = pipeline(
        ["a beach"],
        negative_prompt=["snow"],
        height=64,
        width=64,
        num_inference_steps=3,
        guidance_scale=4.0,
        generator=[torch.Generator("cpu").manual_seed(1)],
        output_type="pt",
    ).images
    return (images[0].permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def _load(folder: Path, kind: str, file: Path | None = None, **options: Any) -> tuple[LoadedModel, list[list[Any]]]:
    """Return a model in memory and a recipe's loras."""
    if file is None:
        return load_model(kind, Model(path=str(folder), revision=PINNED), PINNED, {}), []
    loras = {"ink": Lora(path=str(file.parent), weight_name=file.name, base=CLASSES[kind], **options)}
    model = load_model(kind, Model(path=str(folder), revision=PINNED), PINNED, {}, loras)
    # What a driver would refuse at its check, a worker may meet all the same: the file may have changed since.
    store = open_store(str(file.parent), {})
    return model, [[content_revision(store, lora_files(store, file.name)), WEIGHT]]


def _pixels(model: LoadedModel, loras: list[list[Any]]) -> Any:
    recipe = {
        "task": "text-to-image",
        "prompt": "a beach",
        "negative_prompt": "snow",
        "height": 64,
        "width": 64,
        "num_inference_steps": 3,
        "guidance_scale": 4.0,
        **({"loras": loras} if loras else {}),
    }
    return make_batch(model, [Item(recipe=recipe_from(recipe), seed=1)], None).outputs[0].frames_FHWC[0]


def _difference(one: Any, two: Any) -> int:
    return int(np.abs(one.astype(int) - two).max())


FILES: dict[str, Callable[[str, Any], Tensors]] = {
    "denoiser and text encoders": lambda kind, pipeline: _unet(pipeline) | _texts(kind, pipeline),
    "text encoders alone": _texts,
    "ranks that differ": lambda kind, pipeline: (
        _unet(pipeline, rank=lambda path: 2 if "to_q" in path else 8) | _texts(kind, pipeline)
    ),
}


@pytest.mark.fault("F11", "a kohya LoRA with text-encoder keys, SD 1.x and SDXL", "plain diffusers' pixels within 1")
@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("file", FILES)
def test_pixels_are_those_of_plain_diffusers(
    kind: str, file: str, folders: dict[str, Path], plain: Callable[[str], Any], tmp_path: Path
) -> None:
    pipeline = plain(kind)
    path = write_lora(tmp_path / "ink.safetensors", FILES[file](kind, pipeline))
    without = _plain_pixels(pipeline, None)
    wanted = _plain_pixels(pipeline, path)
    assert _difference(without, wanted) > 8, "the LoRA is not seen"

    model, loras = _load(folders[kind], kind, path)
    assert _difference(_pixels(model, loras), wanted) <= 1
    assert _difference(_pixels(model, []), without) <= 1, "a row without it is changed"


def test_clip_skip_and_text_encoder_loras_do_not_hinder_each_other(
    folders: dict[str, Path], plain: Callable[[str], Any], tmp_path: Path
) -> None:
    path = write_lora(tmp_path / "ink.safetensors", _texts("sd", plain("sd")))
    model, loras = _load(folders["sd"], "sd", path)

    recipe = {"task": "text-to-image", "prompt": "a", "height": 64, "width": 64, "num_inference_steps": 2}
    skipped = Item(recipe=recipe_from({**recipe, "parameters": {"clip_skip": 1}}), seed=1)
    assert make_batch(model, [skipped], None).outputs[0].is_finite
    assert _difference(_pixels(model, loras), _pixels(model, [])) > 8


def _dora(kind: str, pipeline: Any) -> Tensors:
    tensors = _unet(pipeline)
    ups = [key for key in tensors if key.endswith("lora_up.weight")]
    return tensors | {
        key.replace("lora_up.weight", "dora_scale"): tensors[key].norm(dim=1, keepdim=True) for key in ups
    }


def _loha(kind: str, pipeline: Any) -> Tensors:
    tensors: Tensors = {}
    for path, (inputs, outputs) in layers_of(pipeline.unet).items():
        stem = f"lora_unet_{path.replace('.', '_')}"
        for part in ("w1", "w2"):
            tensors |= {
                f"{stem}.hada_{part}_a": torch.randn(outputs, 2),
                f"{stem}.hada_{part}_b": torch.randn(2, inputs),
            }
        tensors[f"{stem}.alpha"] = torch.tensor(2.0)
    return tensors


def _lokr(kind: str, pipeline: Any) -> Tensors:
    return {
        f"lora_unet_{path.replace('.', '_')}.lokr_{part}": torch.randn(4, 4)
        for path in layers_of(pipeline.unet)
        for part in ("w1", "w2")
    }


def _one_stranger(kind: str, pipeline: Any) -> Tensors:
    return _unet(pipeline) | kohya({"down_blocks.9.attentions.0.attn1.to_q": (32, 32)}, "lora_unet")


def _without_an_up(kind: str, pipeline: Any) -> Tensors:
    tensors = dotted(layers_of(pipeline.unet), "unet.")
    tensors.pop(next(key for key in tensors if "lora_B" in key))
    return tensors


def _too_wide(kind: str, pipeline: Any) -> Tensors:
    return kohya(
        {path: (inputs + 8, outputs) for path, (inputs, outputs) in layers_of(pipeline.unet).items()}, "lora_unet"
    )


def _in_four_dimensions(kind: str, pipeline: Any) -> Tensors:
    return {key: value[..., None, None] if value.ndim == 2 else value for key, value in _unet(pipeline).items()}


def _with_a_middle(kind: str, pipeline: Any) -> Tensors:
    tensors = _unet(pipeline)
    return tensors | {f"{next(iter(tensors)).partition('.')[0]}.lora_mid.weight": torch.randn(4, 4)}


def _with_a_word(kind: str, pipeline: Any) -> Tensors:
    return _unet(pipeline) | {"bundle_emb.zwx.string_to_param.*": torch.randn(2, 32)}


REFUSED: dict[str, tuple[Callable[[str, Any], Tensors], str]] = {
    "DoRA": (_dora, r"a DoRA file, .*: of its 128 keys 32 cannot be applied \(lora_unet_.*dora_scale, "),
    "LoHa": (_loha, r"a LoHa file, .*: of its 160 keys 160 cannot be applied"),
    "LoKr": (_lokr, r"a LoKr file, .*: of its 64 keys 64 cannot be applied"),
    "one layer that the model lacks": (
        _one_stranger,
        r"of its 99 keys 2 fit no module of the model \(unet.down_blocks.9",
    ),
    "a factor without the other": (_without_an_up, "were not attached"),
    "another model's, of other widths": (_too_wide, r"\d+ have another shape .*inputs, the module has"),
    "linear layers as convolutions": (_in_four_dimensions, r"another shape .*: 4 dimensions, the module has 2"),
    "a factor that the converter does not know": (
        _with_a_middle,
        r"correctly renamed: lora_unet_\S+\.lora_mid\.weight",
    ),
    "a textual inversion beside it": (_with_a_word, r"of its 97 keys 1 cannot be applied \(bundle_emb\.zwx\.str"),
    "another component's": (lambda _, pipeline: dotted(layers_of(pipeline.unet), "prior."), "64 fit no module"),
}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.fault("F12", kind, "refused by the LoRA's name, with counts"))
        for kind in REFUSED
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_leaves_the_model_as_it_was(
    kind: str, folders: dict[str, Path], plain: Callable[[str], Any], tmp_path: Path
) -> None:
    tensors_of, message = REFUSED[kind]
    path = write_lora(tmp_path / "ink.safetensors", tensors_of("sd", plain("sd")))
    model, loras = _load(folders["sd"], "sd", path)
    before = _pixels(model, [])

    for _ in range(2):  # also when it is asked for again
        with pytest.raises(LoraRefused, match=rf"^LoRA ink \(ink.safetensors\) is not applied: .*{message}") as caught:
            _pixels(model, loras)
        assert "\n" not in str(caught.value)
    assert np.array_equal(_pixels(model, []), before)
    assert not [name for name, _ in model._base.unet.named_parameters() if "lora" in name]


@pytest.mark.fault(
    "F12", "a LoRA of which one layer fits nothing, partial: allow", "the rest applied, and said in the log"
)
@pytest.mark.parametrize(
    ("tensors_of", "left_out"), [(_one_stranger, "down_blocks.9"), (_with_a_word, "bundle_emb.zwx")]
)
def test_a_job_may_allow_a_part_and_the_log_says_what_was_left_out(
    tensors_of: Callable[[str, Any], Tensors],
    left_out: str,
    folders: dict[str, Path],
    plain: Callable[[str], Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pipeline = plain("sd")
    whole = write_lora(tmp_path / "whole" / "ink.safetensors", _unet(pipeline))
    part = write_lora(tmp_path / "part" / "ink.safetensors", tensors_of("sd", pipeline))
    wanted = _pixels(*_load(folders["sd"], "sd", whole))

    with caplog.at_level(logging.WARNING, logger="sdbatch.generate"):
        model, loras = _load(folders["sd"], "sd", part, partial="allow")
        assert np.array_equal(_pixels(model, loras), wanted)
    (record,) = [record for record in caplog.records if record.message == "lora applied in part"]
    assert left_out in vars(record)["left_out"]


def test_a_part_that_would_be_wrong_is_refused_even_where_the_job_allows_parts(
    folders: dict[str, Path], plain: Callable[[str], Any], tmp_path: Path
) -> None:
    path = write_lora(tmp_path / "ink.safetensors", _dora("sd", plain("sd")))
    with pytest.raises(LoraRefused, match="DoRA") as caught:
        _pixels(*_load(folders["sd"], "sd", path, partial="allow"))
    assert "partial" not in str(caught.value)


@pytest.mark.fault("F12", "a LoRA whose alphas differ from module to module", "each module scaled by its own alpha")
@pytest.mark.parametrize("kind", CLASSES)
def test_alphas_that_differ_between_modules_are_each_modules_own(
    kind: str, folders: dict[str, Path], plain: Callable[[str], Any], tmp_path: Path
) -> None:
    pipeline = plain(kind)
    alpha = {"to_q": 1.0, "to_k": None, "q_proj": 8.0, "k_proj": None}  # without one a module's is its rank, 4
    tensors: Tensors = {}
    for component, prefix in (("unet", "lora_unet"), ("text_encoder", TEXT_PREFIXES[kind][0])):
        module = getattr(pipeline, component)
        layers = layers_of(module) if component == "unet" else _text_layers(module)
        tensors |= kohya(layers, prefix, alpha=lambda path: alpha.get(path.rpartition(".")[2], 2.0))
    model, loras = _load(folders[kind], kind, write_lora(tmp_path / "ink.safetensors", tensors))
    _pixels(model, loras)

    (adapter, _), *_ = loras
    for component in (model._base.unet, model._base.text_encoder):
        scales = {
            path: layer.scaling[adapter]
            for path, layer in component.named_modules()
            if adapter in getattr(layer, "scaling", {})
        }
        assert scales
        for path, scale in scales.items():
            assert scale == pytest.approx(WEIGHT * (alpha.get(path.rpartition(".")[2], 2.0) or 4.0) / 4), path
