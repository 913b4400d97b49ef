"""Accelerators in the job: refused where they are of no use, in the key where they change what is seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.resolved import Row, rows_of

from sdbatch.checkpoints import describe
from sdbatch.checkpoints.entries import refuse_accelerators
from sdbatch.errors import JobError, ModelError
from sdbatch.families import FAMILIES, Family
from sdbatch.job import Model, parse_job
from sdbatch.plan.resolve import Resolver

SD, FLUX, WAN = (FAMILIES[title] for title in ("Stable Diffusion 1.x/2.x", "Flux.1", "Wan 2.1 T2V"))
FIRST_BLOCK = {"kind": "FirstBlockCache", "threshold": 0.1}


def _job(determinism: str = "fast", **options: Any) -> Any:
    model = {"path": "builtin:tiny-random", "batch_size": 2, **options}
    return parse_job({"manifest": "m", "output": "o", "models": {"tiny": model}, "determinism": determinism})


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        (FLUX, {"channels_last": True}, "channels_last: is for a unet; Flux.1 has a transformer"),
        (SD, {"attention_backend": "flash"}, "attention_backend: is for a transformer"),
        (SD, {"step_cache": {"kind": "TaylorSeerCache"}}, "TaylorSeerCache skips nothing on .*; of use: none"),
        (WAN, {"step_cache": {"kind": "TaylorSeerCache"}}, "of use: FirstBlockCache, MagCache"),
        (FLUX, {"guidance_interval": [0.1, 0.9]}, "Flux.1 cannot leave guidance out"),
    ],
)
def test_what_a_family_cannot_use_is_refused_before_a_model_loads(
    family: Family, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        refuse_accelerators("m", _job(**options).models["tiny"], family)


def test_a_check_refuses_it_too() -> None:
    with pytest.raises(ModelError, match=r"models\.tiny\.attention_backend"):
        describe("tiny", Model(path="builtin:tiny-random", attention_backend="sage"), {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_cache": FIRST_BLOCK}, "FirstBlockCache decides for all rows .* needs batch_size: 1; it is 2"),
        ({"step_cache": {"kind": "TaylorSeerCache", "threshold": 0.1}}, "TaylorSeerCache takes no threshold"),
        ({"step_cache": {"kind": "MagCache"}}, "MagCache needs mag_ratios"),
        ({"step_cache": {"kind": "TeaCache"}}, "TeaCache"),
        ({"guidance_interval": [0.8, 0.2]}, r"\[0.8, 0.2\] is not two numbers in 0..1"),
        ({"guidance_interval": [0.8]}, r"\[0.8\] is not two numbers"),
        (
            {"guidance_interval": [0.1, 0.8], "step_cache": {"kind": "TaylorSeerCache"}},
            "step_cache beside guidance_interval",
        ),
        ({"attention_backend": "flash_hub"}, "flash_hub"),  # downloads code
        ({"layerwise_casting": "int8"}, "int8"),
    ],
)
def test_a_job_says_what_is_wrong_with_an_accelerator(options: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        _job(**options)


def _resolved(determinism: str = "fast", **options: Any) -> Row:
    job = _job(determinism, **options)
    models = {"tiny": describe("tiny", job.models["tiny"], {})}
    resolver = Resolver(job, models, lambda _: None, lambda url: url)
    found, faults = resolver.resolve({"id": ["a"], "task": ["text-to-image"], "prompt": ["p"]}, 1, {})
    (row,) = rows_of(found, faults, 1)
    assert row is not None
    return row


@pytest.mark.parametrize(
    "options", [{"layerwise_casting": "float8_e4m3fn"}, {"guidance_interval": [0.2, 0.8]}], ids=lambda o: next(iter(o))
)
def test_a_lossy_accelerator_is_in_the_request_key(options: dict[str, Any]) -> None:
    plain, row = _resolved(), _resolved(**options)

    assert row.request_key != plain.request_key
    assert row.batch_key != plain.batch_key
    assert json.loads(row.recipe)["accelerators"] == options


@pytest.mark.parametrize("options", [{"compile": True}, {"channels_last": True}, {"offload_text_encoder": True}])
def test_what_loses_nothing_is_not_in_the_key_unless_bits_are_promised(options: dict[str, Any]) -> None:
    moves_bits = "offload_text_encoder" not in options

    assert _resolved(**options).request_key == _resolved().request_key
    assert (_resolved("exact", **options).request_key != _resolved("exact").request_key) == moves_bits


def test_the_table_of_step_caches_is_diffusers_own(tmp_path: Path) -> None:
    import diffusers

    from sdbatch.job import STEP_CACHES

    for kind, options in STEP_CACHES.items():
        assert set(options) <= getattr(diffusers, f"{kind}Config").__dataclass_fields__.keys()
    for family in FAMILIES.values():
        assert family.step_caches <= STEP_CACHES.keys()
