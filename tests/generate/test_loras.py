"""LoRAs laid over a model in memory: each row as if it were alone, and the weights as they were read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import long_but
from support.toy_models import make_tiny_lora

from sdbatch.checkpoints import BUILTINS, describe, describe_lora
from sdbatch.errors import LoraRefused, ModelError, ModelLoadFailed
from sdbatch.generate.accelerators import RECOMPILES_MAX
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.generate.load.kept_loras import KeptLoras
from sdbatch.job import Lora, Model, parse_job
from sdbatch.plan.resolve import Resolver
from sdbatch.recipe import recipe_from

SD = "Stable Diffusion 1.x/2.x"
Weights = Sequence[tuple[str, float]]


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lora]:
    folder = tmp_path_factory.mktemp("loras")
    for seed, name in enumerate(("ink", "wool")):
        make_tiny_lora(folder / name, seed)
    return {name: Lora(path=str(folder / name), base=SD) for name in ("ink", "wool")}


@pytest.fixture
def model(loras: dict[str, Lora]) -> LoadedModel:
    set_threads(1)
    return load_model("tiny", Model(path="builtin:tiny-random"), BUILTINS["tiny-random"].revision, {}, loras)


def _pixels(model: LoadedModel, loras: dict[str, Lora], names: Weights = (), image: bool = False) -> Any:
    recipe: dict[str, Any] = {
        "task": "image-to-image" if image else "text-to-image",
        "prompt": "a beach",
        "negative_prompt": "",
        "height": 64,
        "width": 64,
        "num_inference_steps": 3,
        "guidance_scale": 4.0,
    }
    if image:
        recipe |= {"images": ["sha256:00"], "strength": 0.7}
    if names:
        recipe["loras"] = [[describe_lora(name, loras[name], {}).revision, weight] for name, weight in names]
    source = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    item = Item(recipe=recipe_from(recipe), seed=1, images=(source,) if image else ())
    return make_batch(model, [item], None).outputs[0].frames_FHWC


CHOICES: tuple[Weights, ...] = (
    (),
    (("ink", 1.0),),
    (("wool", 1.0),),
    (("ink", 0.4),),
    (("ink", 0.7), ("wool", 0.7)),
)


@pytest.mark.parametrize("image", long_but({False}, [False, True]), ids=["text-to-image", "image-to-image"])
def test_rows_with_other_loras_and_none_do_not_touch_each_other(
    model: LoadedModel, loras: dict[str, Lora], image: bool
) -> None:
    alone = []
    for names in CHOICES:
        fresh = load_model("tiny", Model(path="builtin:tiny-random"), BUILTINS["tiny-random"].revision, {}, loras)
        alone.append(_pixels(fresh, loras, names, image))
    assert len({pixels.tobytes() for pixels in alone}) == len(CHOICES)

    for order in (range(5), (4, 0, 3, 1, 0, 2, 4)):
        for index in order:
            assert np.array_equal(_pixels(model, loras, CHOICES[index], image), alone[index]), CHOICES[index]


def test_fifty_switches_leave_the_weights_as_they_were_read(model: LoadedModel, loras: dict[str, Lora]) -> None:
    route = model.family.tasks["text-to-image"][0]
    revisions = [describe_lora(name, lora, {}).revision for name, lora in loras.items()]
    before = _base_weights(model.pipeline(route, ""))
    for count in range(50):
        model.pipeline(route, "", [[revisions[count % 2], 0.1 + count / 50]] if count % 3 else [])

    assert _base_weights(model.pipeline(route, "")) == before


@pytest.mark.long
def test_fifty_loras_in_turn_stay_within_a_bound_of_bytes_and_leave_the_weights(
    model: LoadedModel, tmp_path: Path
) -> None:
    fifty = {}
    for seed in range(50):
        make_tiny_lora(tmp_path / str(seed), seed)
        fifty[str(seed)] = Lora(path=str(tmp_path / str(seed)), base=SD)
    model = load_model("tiny", Model(path="builtin:tiny-random"), BUILTINS["tiny-random"].revision, {}, fifty)
    route = model.family.tasks["text-to-image"][0]
    revisions = [describe_lora(name, lora, {}).revision for name, lora in fifty.items()]
    pipeline: Any = model.pipeline(route, "")
    before, plain = _base_weights(pipeline), _pixels(model, fifty)
    size = _num_bytes(pipeline)
    model.pipeline(route, "", [[revisions[0], 1.0]])
    one = _num_bytes(pipeline) - size
    first = _pixels(model, fifty, [("0", 1.0)])
    assert model.loras.num_bytes == one > 0
    model.loras.bytes_max = 3 * one

    kept = []
    for revision in revisions:
        model.pipeline(route, "", [[revision, 1.0]])
        kept.append(_num_bytes(pipeline) - size)
    assert (kept[0], kept[1], set(kept[2:])) == (one, 2 * one, {3 * one})
    assert np.array_equal(_pixels(model, fifty, [("0", 1.0)]), first), "one that was dropped is attached again"
    assert not np.array_equal(first, plain)
    assert np.array_equal(_pixels(model, fifty), plain)
    assert _base_weights(pipeline) == before

    model.pipeline(route, "", [[revision, 0.2] for revision in sorted(revisions[:5])])
    assert _num_bytes(pipeline) - size == 5 * one, "those of one row stay, however large"


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.long)], ids=["blocks", "whole"])
def test_a_compiled_model_swaps_loras_and_is_not_compiled_anew(
    whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Dynamo traces as ever; what it traced is run as it is, since Inductor takes a minute for it.
    for owner in (torch, torch.nn.Module):
        monkeypatch.setattr(owner, "compile", _traced(owner.compile))
    named = {}
    for seed, (name, rank) in enumerate({"ink": 2, "wool": 4, "chalk": 2}.items()):
        make_tiny_lora(tmp_path / name, seed, rank)
        named[name] = Lora(path=str(tmp_path / name), base=SD)
    set_threads(1)
    torch._dynamo.reset()
    revision = BUILTINS["tiny-random"].revision
    plain = load_model("tiny", Model(path="builtin:tiny-random"), revision, {}, named)
    entry = Model(path="builtin:tiny-random", compile="whole" if whole else True)
    compiled = load_model("tiny", entry, revision, {}, named)
    # One alone, one of a larger rank, two, one beside one that is off, none: each of these is another graph.
    sets: tuple[Weights, ...] = (
        (), (("ink", 0.8),), (("wool", 1.0),), (("ink", 0.5), ("wool", 0.5)), (("chalk", 0.3),), (),
    )  # fmt: skip
    swapped: tuple[Weights, ...] = (
        (("ink", 0.8),),
        (("wool", 0.1),),
        (("chalk", 0.9), ("ink", 0.2)),
        (("ink", 0.7),),
        (),
    )

    def apart(names: Weights) -> int:
        pixels = [_pixels(model, named, names).astype(int) for model in (plain, compiled)]
        return int(np.abs(pixels[0] - pixels[1]).max())

    assert max(apart(names) for names in sets) <= 1
    before = _num_graphs()
    assert before > 0
    assert max(apart(names) for names in swapped) <= 1
    assert _num_graphs() == before, "a LoRA of other weights, or another place, is no reason to compile"
    assert torch._dynamo.config.recompile_limit >= RECOMPILES_MAX


def _traced(compiling: Any) -> Any:
    return lambda *args, **kwargs: compiling(*args, **{**kwargs, "backend": "eager"})


def _num_graphs() -> int:
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def test_a_compiled_model_refuses_a_lora_that_does_not_fit_and_goes_on(tmp_path: Path, loras: dict[str, Lora]) -> None:
    from safetensors.torch import load_file, save_file

    torn = load_file(Path(loras["ink"].path) / "pytorch_lora_weights.safetensors")
    torn = {
        name: tensor[:, :-1].contiguous() if "lora_A" in name or "down" in name else tensor
        for name, tensor in torn.items()
    }
    save_file(torn, tmp_path / "pytorch_lora_weights.safetensors")
    named = {**loras, "torn": Lora(path=str(tmp_path), base=SD)}
    files = {describe_lora(name, lora, {}).revision: name for name, lora in named.items()}
    model = load_model("tiny", Model(path="builtin:tiny-random"), BUILTINS["tiny-random"].revision, {}, named)
    first = _pixels(model, named, [("wool", 0.6)])
    pipeline: Any = model.pipeline(model.family.tasks["text-to-image"][0], "")
    kept = KeptLoras(pipeline, model.loras._files, lambda: None, [pipeline.unet])
    revisions = {name: revision for revision, name in files.items()}
    model.loras = kept

    for _ in range(2):
        with pytest.raises(LoraRefused, match="LoRA torn"):
            kept.switch([[revisions["torn"], 1.0]])
    assert np.abs(_pixels(model, named, [("wool", 0.6)]).astype(int) - first).max() <= 1


def test_a_row_of_a_compiled_model_may_name_loras(loras: dict[str, Lora]) -> None:
    named = {name: lora.model_dump(exclude_unset=True) for name, lora in loras.items()}
    model = {"path": "builtin:tiny-random", "compile": True}
    job = parse_job({"manifest": "m", "output": "o", "models": {"tiny": model}, "loras": named})
    models = {"tiny": describe("tiny", job.models["tiny"], {})}
    infos = {name: describe_lora(name, lora, {}) for name, lora in job.loras.items()}
    resolver = Resolver(job, models, lambda _: None, lambda url: url, infos)
    row = {"id": "a", "task": "text-to-image", "prompt": "p", "loras": [{"name": "ink", "weight": 1.0}]}

    rows, faults = resolver.resolve({name: [value] for name, value in row.items()}, 1, {})
    assert faults == []
    assert rows.id == ["a"]


def _num_bytes(pipeline: Any) -> int:
    return sum(weight.nbytes for name in ("unet", "text_encoder") for weight in getattr(pipeline, name).parameters())


def _base_weights(pipeline: Any) -> str:
    """Return a digest of a pipeline's own weights, those of adapters left out."""
    digest = hashlib.sha256()
    for name in ("unet", "text_encoder", "vae"):
        weights = {
            key.replace(".base_layer", ""): value
            for key, value in getattr(pipeline, name).state_dict().items()
            if "lora_" not in key
        }
        for key in sorted(weights):
            digest.update(key.encode() + weights[key].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def test_the_digest_of_the_weights_sees_a_fused_adapter(model: LoadedModel, loras: dict[str, Lora]) -> None:
    route = model.family.tasks["text-to-image"][0]
    revision = describe_lora("ink", loras["ink"], {}).revision
    before = _base_weights(model.pipeline(route, ""))
    model.pipeline(route, "", [[revision, 1.0]]).fuse_lora()

    assert _base_weights(model.pipeline(route, "")) != before


def test_a_lora_that_changed_since_the_plan_is_refused(model: LoadedModel) -> None:
    with pytest.raises(ModelLoadFailed, match="none of the job's loras is what was planned: revision 00ff"):
        model.pipeline(model.family.tasks["text-to-image"][0], "", [["00ff", 1.0]])


def test_a_lora_for_no_family_or_without_its_file_is_named(loras: dict[str, Lora], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"loras\.ink: .*: no pytorch_lora_weights\.safetensors there"):
        describe_lora("ink", Lora(path=str(tmp_path), base=SD), {})
    with pytest.raises(ModelError, match=r"loras\.ink: base 'SD9' is not a family"):
        describe_lora("ink", Lora(path=loras["ink"].path, base="SD9"), {})
