"""One campaign with two LoRAs, both, none, and a ControlNet: each row's file is the one it has alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from conftest import asset_digests
from PIL import Image
from support.toy_models import make_tiny_controlnet, make_tiny_lora

import sdbatch
from sdbatch import Selection


def test_rows_of_a_mixed_campaign_are_what_they_are_alone(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    for seed, name in enumerate(("ink", "wool")):
        make_tiny_lora(tmp_path / name, seed)
    make_tiny_controlnet(tmp_path / "controlnet")
    Image.fromarray(np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)).save(tmp_path / "lines.png")
    ink, wool = {"name": "ink", "weight": 1.0}, {"name": "wool", "weight": 0.5}
    changes: dict[str, dict[str, Any]] = {
        "plain": {},
        "ink": {"loras": [ink]},
        "wool": {"loras": [wool]},
        "both": {"loras": [ink, wool]},
        "led": {"control_image": str(tmp_path / "lines.png")},
        "led-ink": {"control_image": str(tmp_path / "lines.png"), "loras": [ink]},
        "again": {"seed": 6},
    }
    rows = [{"id": name, "prompt": "a fox", "seed": 5, **change} for name, change in changes.items()]
    base = "Stable Diffusion 1.x/2.x"
    job = job_of(
        write_manifest(rows),
        models={"tiny": {"path": "builtin:tiny-random", "batch_size": 2, "controlnet": str(tmp_path / "controlnet")}},
        loras={name: {"path": str(tmp_path / name), "base": base} for name in ("ink", "wool")},
    )
    result = sdbatch.run(job, in_process=True)
    together = asset_digests(job["output"])

    assert (result.counts["rows_ok"], result.counts["model_loads"]) == (len(rows), 1)
    assert len(set(together.values())) == len(rows), "a LoRA or a control image moves nothing"
    for name in ("plain", "both", "led-ink"):
        output = str(tmp_path / f"alone-{name}")
        sdbatch.run({**job, "output": output}, Selection(only=frozenset({name})), in_process=True)
        assert asset_digests(output).items() <= together.items()
    assert sdbatch.reproduce(job["output"], "led-ink", job=job).is_same_file
