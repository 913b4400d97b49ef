"""The GPU benchmark on a CPU: true architectures are what they claim, every part runs at toy size and is bounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import long_but

ROOT = Path(__file__).parents[2]

# Arguments of one denoiser call at batch 1, and its TFLOP as counted independently (a convention: 2 a multiply-add).
CALLS: dict[str, tuple[dict[str, tuple[int, ...]], float]] = {
    "sd15": ({"sample": (1, 4, 64, 64), "timestep": (1,), "encoder_hidden_states": (1, 77, 768)}, 0.803),
    "sdxl": ({"sample": (1, 4, 128, 128), "timestep": (1,), "encoder_hidden_states": (1, 77, 2048)}, 6.761),
    "wan": ({"hidden_states": (1, 16, 21, 60, 104), "timestep": (1,), "encoder_hidden_states": (1, 512, 4096)}, 283.0),
}


@pytest.mark.parametrize("name", long_but({"sd15", "wan"}, CALLS))
def test_a_true_architecture_has_its_published_size_and_cost(name: str) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.architectures import ARCHITECTURES, component, denoiser

    architecture = ARCHITECTURES[name]
    with torch.device("meta"):
        model = component(architecture, denoiser(architecture), is_toy=False)
        shapes, tflop = CALLS[name]
        tensors: dict[str, Any] = {key: torch.randn(shape) for key, shape in shapes.items()}
        if name == "sdxl":
            tensors["added_cond_kwargs"] = {"text_embeds": torch.randn(1, 1280), "time_ids": torch.randn(1, 6)}
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            model(**tensors)

    assert sum(value.numel() for value in model.parameters()) / 1e6 == pytest.approx(architecture.parameters, abs=0.01)
    assert flops.get_total_flops() / 1e12 == pytest.approx(tflop, rel=0.01)


def test_flux_with_fewer_blocks_has_the_size_that_is_compared_when_it_is_made() -> None:
    import torch

    from benchmarks.architectures import PARTIAL, component

    with torch.device("meta"):
        model = component(PARTIAL["flux-few"], "transformer", is_toy=False)

    millions = sum(value.numel() for value in model.parameters()) / 1e6
    assert millions == pytest.approx(PARTIAL["flux-few"].parameters, abs=0.01)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run every part once at toy size; return the folder of the results."""
    out = tmp_path_factory.mktemp("gpu")
    done = _benchmark("--toy", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.long
def test_every_part_runs_at_toy_size(toy: Path) -> None:
    result = json.loads((toy / "gpu.json").read_text())
    steps = {(part, name): step for part, found in result["parts"].items() for name, step in found.items()}

    raised = {place: step["raised"] for place, step in steps.items() if isinstance(step, dict) and "raised" in step}
    wants_more = {("flux-few", "attention _native_cudnn"), ("quantized", "variant torchao int8wo")}  # cuDNN; torchao
    assert raised.keys() <= wants_more, raised
    assert {name: end["status"] for name, end in result["ends"].items() if end["status"]} == {}
    assert result["rows"] == [], "a toy's times stand in no table"
    assert steps["card", "worker_versions"]["diffusers"]
    assert steps["no-card", "start_check"]["num_gpus_1"].startswith("GpuUnusable")
    assert steps["faults", "at_once"]["wrong"] == []
    assert steps["files", "finished"]["ok"] == 4


@pytest.mark.long
def test_its_pictures_are_the_eager_loops(toy: Path) -> None:
    parts = json.loads((toy / "gpu.json").read_text())["parts"]

    for name in ("sdxl-4-steps", "sd15"):
        compared = parts[name]["compared"]
        assert compared["difference"]["rows"] == compared["eager_rows"]
        assert compared["difference"]["max"] <= 1
        assert compared["tflop"] > 0


@pytest.mark.long
def test_its_memory_and_its_bits_are_looked_at(toy: Path) -> None:
    parts = json.loads((toy / "gpu.json").read_text())["parts"]

    assert parts["correct"]["switches"]["modules_left_by_switches"] <= 0
    assert parts["exact"]["plain exact"]["places_equal"]
    assert parts["exact"]["plain exact"]["processes_equal"]
    assert parts["exact"]["plain exact"]["neighbours_differ"], "a digest that all rows share would prove nothing"


def test_a_part_that_takes_too_long_or_raises_costs_itself_alone(tmp_path: Path) -> None:
    from benchmarks.gpu.__main__ import run_part

    hung = tmp_path / "hung"

    def hang() -> None:
        hung.touch()
        time.sleep(60)

    def fail() -> None:
        raise ValueError("a part that raises")

    for limit_s in (0.2, 2.0, 20.0):  # on a busy machine the first may be over before the part begins
        assert run_part(hang, limit_s=limit_s, grace_s=0.1)["status"] == -9
        if hung.is_file():
            break
    assert hung.is_file()
    assert run_part(fail, limit_s=60)["status"] == 1
    assert run_part(lambda: None, limit_s=60)["status"] == 0


def test_a_step_that_raises_is_kept_and_the_next_one_runs(tmp_path: Path) -> None:
    from benchmarks.gpu.bench import Bench, Results

    results = Results(file=tmp_path / "gpu.json")
    bench = Bench(part="p", device="cpu", is_toy=False, folder=tmp_path, results=results, limit_s=100.0)

    assert bench.step("bad", lambda: {"value": 1 / 0}) is None
    assert bench.step("dear", lambda: {"value": 2}, needs_s=1000) is None
    assert bench.step("good", lambda: {"value": 3}) == {"value": 3}

    kept = results.read()["parts"]["p"]
    assert "ZeroDivisionError" in kept["bad"]["raised"]
    assert kept["dear"]["left_out"].startswith("it needs 1000 s")
    assert kept["good"]["value"] == 3


def test_without_a_gpu_nothing_is_measured(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")

    done = _benchmark("--out", str(tmp_path))

    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "no GPU here" in done.stdout


def _benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )
