"""LoRAs of Wan 2.2 A14B, whose two denoisers take one each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.toy_clips import make_wan_t2v, make_wan_t2v_a14b
from support.toy_loras import dotted, layers_of, write_lora

from sdbatch.checkpoints import describe, describe_lora
from sdbatch.errors import ModelError
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.job import Lora, Model
from sdbatch.recipe import recipe_from

A14B = "Wan 2.2 T2V A14B"


def _pixels(model: LoadedModel, *loras: list[Any]) -> Any:
    recipe = {
        "task": "text-to-video",
        "prompt": "a beach",
        "height": 32,
        "width": 32,
        "num_frames": 5,
        "fps": 8.0,
        "num_inference_steps": 4,
        "guidance_scale": 1.0,
        "loras": list(loras),
        "parameters": {"max_sequence_length": 32},
    }
    frames = make_batch(model, [Item(recipe=recipe_from(recipe), seed=1)], None).outputs[0].frames_FHWC
    return frames.astype(int)


def test_each_of_the_two_denoisers_takes_its_own_lora(tmp_path: Path) -> None:
    set_threads(1)
    make_wan_t2v_a14b(tmp_path / "model")
    import diffusers

    transformer = diffusers.WanTransformer3DModel.from_pretrained(tmp_path / "model" / "transformer")
    write_lora(tmp_path / "lora" / "a.safetensors", dotted(layers_of(transformer), "transformer.", strength=1.0))
    one: dict[str, Any] = {"path": str(tmp_path / "lora"), "weight_name": "a.safetensors", "base": A14B}
    loras = {"high": Lora(**one), "low": Lora(**one, load_into_transformer_2=True)}
    entry = Model(path=str(tmp_path / "model"))
    revisions = {name: describe_lora(name, lora, {}).revision for name, lora in loras.items()}
    model = load_model("m", entry, describe("m", entry, {}).combined_revision, {}, loras)

    plain = _pixels(model)
    high, low = (_pixels(model, [revisions[name], 1.0]) for name in ("high", "low"))
    both = _pixels(model, *sorted([revision, 1.0] for revision in revisions.values()))
    again = _pixels(model)
    low_again = _pixels(model, [revisions["low"], 1.0])

    assert revisions["high"] != revisions["low"], "the same weights in another denoiser are another LoRA"
    pictures = {"plain": plain, "high": high, "low": low, "both": both}
    for name, pixels in pictures.items():
        for other, others in pictures.items():
            assert name == other or np.abs(pixels - others).max() > 2, f"{name} is {other}"
    assert np.array_equal(plain, again)
    assert np.array_equal(low, low_again)


def test_a_lora_for_a_second_denoiser_is_refused_where_there_is_one(tmp_path: Path) -> None:
    make_wan_t2v(tmp_path / "model")
    write_lora(tmp_path / "lora" / "a.safetensors", {"transformer.x.lora_A.weight": np_zeros()})
    lora = Lora(
        path=str(tmp_path / "lora"), weight_name="a.safetensors", base="Wan 2.1 T2V", load_into_transformer_2=True
    )

    with pytest.raises(ModelError, match=r"'Wan 2\.1 T2V' has one denoiser; two have Wan 2\.2"):
        describe_lora("low", lora, {})


def np_zeros() -> Any:
    """Return a tensor that is never read."""
    import torch

    return torch.zeros(2, 2)
