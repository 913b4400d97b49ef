"""A few rows for every route of every family, without any folder: what the file of golden keys is made from.

    PYTHONPATH=tests .venv/bin/python -m support.golden_rows > tests/plan/golden_keys.json

Written again where a family or a route is added, which adds lines alone, and where a change is meant to move keys: with
a new key version, or a route's new version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sdbatch.checkpoints import LoraInfo, ModelInfo, describe
from sdbatch.families import FAMILIES, Family, Route
from sdbatch.families.arguments import PARAMETER_BOUNDS
from sdbatch.job import Job, parse_job
from sdbatch.plan.resolve import Resolver

_PARAMETERS: dict[type, Any] = {int: 2, float: 0.5, bool: True, str: "x", list: [1]}
_TAKES = ("plain", "all", "parameters", "exact")


def golden_keys() -> dict[str, str]:
    """Return the request key of each row, by family, task, route and take."""
    return {
        f"{family.title} | {task} | {route.pipeline} | {take}": _key(family, task, route, take)
        for family in FAMILIES.values()
        for task, routes in family.tasks.items()
        for route in routes
        for take in _TAKES
    }


def _key(family: Family, task: str, route: Route, take: str) -> str:
    job = _job(family, is_exact=take == "exact")
    lora = LoraInfo(name="ink", base=family.title, revision=_digest("ink"))
    resolver = Resolver(
        job, {"m": _model(job, route)}, lambda _: None, lambda url: url, {"ink": lora}, loads_here=False
    )
    row = {"id": "a", "task": task, **dict(_own(route))}
    if take in {"all", "exact"}:
        row |= dict(_settings(family, route))
    if take == "parameters" and route.parameters:
        name = min(route.parameters)
        value = _PARAMETERS[route.parameters[name]]
        if name in PARAMETER_BOUNDS:
            value = max(value, PARAMETER_BOUNDS[name].least)
        row["parameters"] = json.dumps({name: value})
    if route.nets == "union" and "control_mode" in route.parameters:
        row["parameters"] = json.dumps({**json.loads(row.get("parameters") or "{}"), "control_mode": [1]})
    digests = {url: f"sha256:{_digest(url)}" for url in ("0", "1", "mask", "video", "control_image")}
    resolved, problems = resolver.resolve({name: [value] for name, value in row.items()}, 1, digests)
    assert not problems, (family.title, task, take, problems)
    key: str = resolved.request_key[0].as_py()
    return key


def _job(family: Family, *, is_exact: bool) -> Job:
    side = 512 // family.size_multiple * family.size_multiple
    height, width = family.sizes[0] if family.sizes else (side, side)
    model: dict[str, Any] = {"path": "/models/m", "family": family.title, "revision": _digest(family.title)}
    model |= {
        "batch_size": 2,
        "defaults": {"height": height, "width": width},
        "dtype": "bfloat16" if is_exact else "float32",
    }
    determinism = "exact" if is_exact else "fast"
    return parse_job({"manifest": "m", "output": "o", "models": {"m": model}, "seed": 11, "determinism": determinism})


def _model(job: Job, route: Route) -> ModelInfo:
    described = describe("m", job.models["m"], {})
    revisions = {option: _digest(option) for option in route.components}
    return replace(described, components=route.components, component_revisions=revisions)


def _own(route: Route) -> Iterator[tuple[str, Any]]:
    """Yield what a row cannot do without."""
    if "prompt" in route.arguments:
        yield "prompt", '100 % "Ä" %s 🦊'
    if route.images[1]:
        yield "images", [str(number) for number in range(max(1, route.images[0], min(2, route.images[1])))]
    yield from ((role, role) for role in sorted(route.sources))


def _settings(family: Family, route: Route) -> Iterator[tuple[str, Any]]:
    """Yield a value for every further column that a route takes."""
    values = {
        "negative_prompt": None if route.negative_needs else "blur",
        "fit": "contain",
        "num_frames": 4 * family.frame_multiple + 1,
        "fps": 23.976,
        "num_inference_steps": 12,
        "guidance_scale": 0.1 + 0.2,
        "strength": 0.5,
        "scheduler": family.schedulers[0] if family.schedulers else None,
        # Wan 2.2 A14B took none when these keys were first written down.
        "loras": None if family.has_second_denoiser else [{"name": "ink", "weight": 0.5}],
    }
    yield "seed", 2**62 + 3
    yield from ((name, value) for name, value in values.items() if name in route.arguments)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    print(json.dumps(golden_keys(), indent=0, ensure_ascii=False))  # noqa: T201
