"""The GPU benchmark on a CPU: true architectures are what they claim, and the whole command runs at toy size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

# Arguments of one denoiser call at batch 1, and its TFLOP as counted independently (a convention: 2 a multiply-add).
CALLS: dict[str, tuple[dict[str, tuple[int, ...]], float]] = {
    "sd15": ({"sample": (1, 4, 64, 64), "timestep": (1,), "encoder_hidden_states": (1, 77, 768)}, 0.803),
    "sdxl": ({"sample": (1, 4, 128, 128), "timestep": (1,), "encoder_hidden_states": (1, 77, 2048)}, 6.761),
    "wan": ({"hidden_states": (1, 16, 21, 60, 104), "timestep": (1,), "encoder_hidden_states": (1, 512, 4096)}, 283.0),
}


@pytest.mark.parametrize("name", CALLS)
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


@pytest.mark.slow
def test_the_gpu_benchmark_runs_at_toy_size_and_its_pictures_are_the_eager_loops(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--toy", "--only", "^(sdxl|wan)$", "--out", str(tmp_path)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert [one["name"] for one in result["measured"]] == ["sdxl", "wan"]
    for one in result["measured"]:
        assert one["rows"] >= 4
        assert set(one["curve_per_s"]) == {"1", "2"}
        assert one["tflop"] > 0
        assert one["difference"]["rows"] == one["eager_rows"]
    assert result["measured"][0]["difference"]["max"] <= 1
    assert result["rows"] == [], "a toy's times stand in no table"


def test_without_a_gpu_nothing_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from benchmarks.gpu import main

    if torch.cuda.is_available():
        pytest.skip("there is one")

    assert (main(["--out", str(tmp_path)]), list(tmp_path.iterdir())) == (2, [])
    assert "no GPU here" in capsys.readouterr().out
