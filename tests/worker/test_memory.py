"""What a worker lets go: a call that failed before the next one begins, a model before the next one is loaded."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import support.toy_clips
import support.toy_models
import torch
from conftest import long_but
from support.live_bytes import live_bytes
from support.revisions import PINNED
from support.toy_loras import CLIP, kohya, layers_of, write_lora

from sdbatch import points
from sdbatch.checkpoints import describe_lora
from sdbatch.errors import ModelLoadFailed
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Job, parse_job
from sdbatch.types import Request
from sdbatch.worker.outputs import CallPlan, FailedOutput, RenderedOutput, RenderTally
from sdbatch.worker.render import Renderer

MAKERS: Mapping[str, Callable[[Path], None]] = {
    "sd": make_tiny_random,
    "sdxl": support.toy_models.make_tiny_sdxl,
    "wan": support.toy_clips.make_wan_t2v,
    "ltx": support.toy_clips.make_ltx,
}
CLIPS = {"wan": 5, "ltx": 9}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) for name in MAKERS}
    for name, folder in made.items():
        MAKERS[name](folder)
    gc.collect()  # the pipelines that were made refer to themselves
    return made


@pytest.fixture
def strike() -> Iterator[Callable[[Callable[[str], None]], None]]:
    """Let a test look on at named points."""
    yield points.install
    points.install(lambda _: None)


def _job(folders: dict[str, Path], offload: str = "none", **changes: Any) -> Job:
    every = {"revision": PINNED, "batch_size": 4, "offload": offload}
    models = {name: {"path": str(folder), **every} for name, folder in folders.items()}
    return parse_job({"manifest": "m", "output": "o", "models": models, "determinism": "fast", **changes})


def _request(model: str, number: int = 0, **recipe: Any) -> Request:
    frames = {"num_frames": CLIPS[model], "fps": 8.0} if model in CLIPS else {}
    values = {
        "task": "text-to-video" if frames else "text-to-image",
        "prompt": f"a beach, {number}",
        "height": 64,
        "width": 64,
        "num_inference_steps": 3,
        "guidance_scale": 4.0,
        "seed": number,
        **frames,
        **recipe,
    }
    return Request(
        id=f"row-{number}",
        request_key=f"{number:064x}",
        recipe=json.dumps(values),
        outputs=(0,),
        sources=(),
        model=model,
        batch_key=model,
        cost_tflop=0.1,
    )


def _modules(renderer: Renderer) -> list[torch.nn.Module]:
    assert renderer._model is not None
    components = renderer._model[1]._base.components.values()
    return [module for part in components if isinstance(part, torch.nn.Module) for module in part.modules()]


PLACES = {
    "denoiser": lambda base: getattr(base, "unet", None) or base.transformer,
    "decoder": lambda base: base.vae.decoder,
    "text encoder": lambda base: base.text_encoder,
}


@pytest.mark.fault(
    "A1", "out of memory in a call of several rows", "live bytes at the retry equal those before the call"
)
@pytest.mark.parametrize(
    ("model", "place"),
    long_but(
        {("sd", "denoiser"), ("sd", "text encoder"), ("wan", "decoder")},
        [("sd", "denoiser"), ("sd", "text encoder"), ("sdxl", "decoder"), ("wan", "decoder"), ("ltx", "denoiser")],
    ),
)
def test_a_retry_finds_the_memory_that_the_failed_call_found(model: str, place: str, folders: dict[str, Path]) -> None:
    renderer = Renderer(_job(folders), dict.fromkeys(folders, PINNED))
    base = renderer._warm(model, RenderTally())._base
    weights = frozenset(
        weight.untyped_storage().data_ptr()
        for module in _modules(renderer)
        for weight in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    )
    calls: list[tuple[int, int]] = []
    passes = []

    def run_out(*_: object) -> None:
        passes.append(len(calls))
        kept = torch.ones(1000, 1000)  # what a layer would have made by then
        # A decoder goes on in smaller parts, until a row alone has failed as well.
        is_due = place == "decoder" or passes.count(len(calls)) == (2 if place == "denoiser" else 1)
        if len(calls) < 3 and is_due:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {kept.nbytes} bytes")

    PLACES[place](base).register_forward_pre_hook(run_out)
    requests = [_request(model, number) for number in range(4)]
    outputs = list(renderer.fetch(requests))

    def measure(ids: tuple[str, ...], _: float) -> None:
        calls.append((len(ids), live_bytes(weights)))

    plan = CallPlan(batch_size=4, is_fixed=True)
    made = list(renderer.generate(outputs, plan, RenderTally(), measure))  # type: ignore[arg-type]

    assert [type(output) for output in made] == [RenderedOutput] * 4, [getattr(output, "error", "") for output in made]
    assert [rows for rows, _ in calls[:3]] == [4, 2, 1]
    before = calls[0][1]
    assert [live for _, live in calls[:3]] == [before, before, before]
    pixels = sum(output.generated.frames_FHWC.nbytes for output in made if isinstance(output, RenderedOutput))
    assert pixels > 0


@pytest.mark.fault(
    "A1", "a row that does not fit alone", "recorded as OutOfMemory, and nothing of its call stays alive"
)
def test_a_row_that_fails_keeps_none_of_its_tensors(folders: dict[str, Path]) -> None:
    renderer = Renderer(_job(folders), dict.fromkeys(folders, PINNED))
    base = renderer._warm("sd", RenderTally())._base
    latents: list[weakref.ref[torch.Tensor]] = []

    def run_out(_: object, args: tuple[torch.Tensor, ...]) -> None:
        latents.append(weakref.ref(args[0]))
        raise torch.OutOfMemoryError("CUDA out of memory")

    base.unet.register_forward_pre_hook(run_out)
    (failed,) = renderer.render([_request("sd")], CallPlan(batch_size=4))

    assert isinstance(failed, FailedOutput)
    assert (type(failed.error).__name__, str(failed.error)) == ("OutOfMemory", "OutOfMemoryError: CUDA out of memory")
    assert "run_out" in failed.traceback, "the traceback is kept as text"
    assert [latent() for latent in latents] == [None]


@pytest.mark.fault(
    "A2", "a switch of models: SD with LoRAs, SDXL, Wan, LTX", "no module of the old one lives when the new one loads"
)
@pytest.mark.parametrize("offload", long_but({"none"}, ["none", "model", "group"]))
def test_no_module_of_the_old_model_lives_when_the_next_one_is_loaded(
    offload: str, folders: dict[str, Path], tmp_path: Path, strike: Callable[[Callable[[str], None]], None]
) -> None:
    import diffusers

    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(folders["sd"]))
    text = {f"text_model.{path}": shape for path, shape in layers_of(pipeline.text_encoder, CLIP).items()}
    tensors = kohya(layers_of(pipeline.unet), "lora_unet") | kohya(text, "lora_te")
    write_lora(tmp_path / "ink.safetensors", tensors)
    del pipeline
    lora = {"path": str(tmp_path), "base": "StableDiffusionPipeline", "weight_name": "ink.safetensors"}
    job = _job(folders, offload, loras={"ink": lora})
    identity = describe_lora("ink", job.loras["ink"], {}).revision
    renderer = Renderer(job, dict.fromkeys(folders, PINNED))
    alive: list[weakref.ref[torch.nn.Module]] = []
    counted: list[int] = []

    def count(point: str) -> None:
        if point == "before-load":
            counted.append(sum(module() is not None for module in alive))

    strike(count)
    for model in (*MAKERS, "sd"):
        further: dict[str, Any] = {"loras": [[identity, 0.8]], "parameters": {"clip_skip": 1}} if model == "sd" else {}
        (made,) = renderer.render([_request(model, **further)], CallPlan(batch_size=4))
        assert isinstance(made, RenderedOutput), made
        alive = [weakref.ref(module) for module in _modules(renderer)]
        assert len(alive) > 50

    assert counted == [0] * 5


@pytest.mark.fault(
    "A3", "out of memory while a model is placed", "ModelLoadFailed with what it needs and what there is"
)
def test_a_model_that_does_not_fit_is_the_models_matter(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers

    placed = []

    def run_out(module: Any, *args: Any, **kwargs: Any) -> Any:
        placed.append(weakref.ref(module))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(diffusers.AutoencoderKL, "to", run_out)
    renderer = Renderer(_job(folders), dict.fromkeys(folders, PINNED))
    text = r"its weights of \d+\.\d\d GiB do not fit: this machine has .* GiB free of .*; OutOfMemoryError: CUDA out of"
    with pytest.raises(ModelLoadFailed, match=text) as caught:
        list(renderer.render([_request("sd")], CallPlan(batch_size=4)))

    assert "\n" not in str(caught.value)
    del caught
    gc.collect()
    assert [module() for module in placed] == [None]
    monkeypatch.undo()
    (made,) = renderer.render([_request("sd")], CallPlan(batch_size=4))
    assert isinstance(made, RenderedOutput)
