"""The family table says what diffusers' own classes say."""

from __future__ import annotations

import inspect
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import sdbatch
from sdbatch.columns import MANIFEST, SOURCE_ROLES
from sdbatch.families import (
    FAMILIES,
    Family,
    Given,
    Route,
    cost_tflop,
    find_family,
    nearest_multiple,
    next_frame_count,
)
from sdbatch.families.arguments import PARAMETER_BOUNDS
from sdbatch.families.scheduler_options import REQUIRES
from sdbatch.families.schedulers import (
    CALLED_ALONE,
    COGVIDEOX_SCHEDULERS,
    EPSILON_SCHEDULERS,
    EULER_SCHEDULERS,
    FLOW_SCHEDULERS,
    MOTION_SCHEDULERS,
    OF_OTHER_PIPELINES,
    OF_OWN_NOISE,
    SAY_NO_SHIFT,
    SCALE_NOISE,
    TOLD_OF_FLOW,
    WAN_SCHEDULERS,
)
from sdbatch.generate.tasks import CALLS
from sdbatch.generate.tasks.adapters import ADAPTERS
from sdbatch.manifest.schema import COLUMNS
from sdbatch.recipe import is_clip
from sdbatch.types import TASKS

ROWS = [(family, task, row) for family in FAMILIES.values() for task, rows in family.tasks.items() for row in rows]
NAMES = [f"{family.title}: {task}: {row.pipeline}" for family, task, row in ROWS]
OURS = {"scheduler", "loras", "fit", "duration_s", "ip_adapter_scale"}
"""Columns that are settled before the call."""
OF_SOURCES = {"height", "width", "num_frames", "fps"}
"""Columns that may follow from the sources."""
OTHER_DEFAULTS = {
    ("HunyuanImage 2.1 distilled", "num_inference_steps"),
    ("LTXConditionPipeline", "strength"),
    *(("Wan 2.2 TI2V", column) for column in ("height", "width", "num_frames")),
    *(("Wan 2.2 T2V A14B", column) for column in ("num_inference_steps", "guidance_scale")),
    *(("Wan 2.2 I2V A14B", column) for column in ("num_inference_steps", "guidance_scale")),
}
"""(pipeline or family, column) whose default here is meant to be another than the class's."""
NOT_TAKEN = {
    ("HunyuanImage 2.1 distilled", "negative_prompt"),  # it is unguided
    ("LTXConditionPipeline", "strength"),  # there it says how much an image counts, not how much of it is kept
}
"""(pipeline or family, column) that the class has an argument for, and a row here may not say."""
NATIVE = {("Sana", "height"), ("Sana", "width")}
"""(family, column) whose default is the folder's own size, which follows from its denoiser's `sample_size`."""


def _pipeline(name: str) -> Any:
    import diffusers

    return getattr(diffusers, name)


def _parameters(row: Route) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(_pipeline(row.pipeline).__call__).parameters


def test_the_vae_is_shifted_where_every_pipeline_adds_its_shift() -> None:
    import diffusers

    for family in FAMILIES.values():
        modules = {sys.modules[getattr(diffusers, route.pipeline).__module__] for route in family.routes}
        adds = [re.search(r"[-+] self\.vae\.config\.shift_factor", inspect.getsource(module)) for module in modules]
        assert family.vae_is_shifted == any(adds) == all(adds), family.title


@pytest.mark.parametrize(("family", "task", "row"), ROWS, ids=NAMES)
def test_no_pipeline_changes_a_size_or_a_prompt_by_itself(family: Family, task: str, row: Route) -> None:
    """Both are on by default where a pipeline has them: an output of another size, a prompt that bs4 has cleaned."""
    import diffusers

    parameters = inspect.signature(getattr(diffusers, row.pipeline).__call__).parameters
    for name in ("use_resolution_binning", "clean_caption"):
        if name in parameters and parameters[name].default is True:
            assert row.constants.get(name) is False, f"{family.title}: {row.pipeline} has {name}"


@pytest.mark.parametrize(("family", "task", "row"), ROWS, ids=NAMES)
def test_each_way_names_a_pipeline_that_takes_its_arguments(family: Family, task: str, row: Route) -> None:
    taken = _parameters(row).keys()

    assert task in TASKS
    assert task in CALLS
    assert row.arguments.keys() <= {*COLUMNS, "area"}
    assert {argument for argument in row.arguments.values() if argument} <= taken
    assert {"generator", "output_type"} | row.constants.keys() | row.parameters.keys() <= taken
    assert not row.parameters.keys() & (set(row.arguments.values()) | row.constants.keys())
    outside = OURS | OF_SOURCES | ({"guidance_scale"} if row.adapter in {"guiders", "hunyuan"} else set())
    assert not {column for column, argument in row.arguments.items() if not argument} - outside
    assert row.adapter in {"", *ADAPTERS}


@pytest.mark.parametrize(("family", "task", "row"), ROWS, ids=NAMES)
def test_a_way_takes_the_columns_of_its_sources(family: Family, task: str, row: Route) -> None:
    sources = set(row.sources) | ({"images"} if row.images[1] else set())

    assert {role for role in SOURCE_ROLES if row.arguments.get(role)} == sources | row.optional
    assert ("fit" in row.arguments) == (bool(sources) and row.enlarges == 1)
    assert ("num_frames" in row.arguments) == is_clip(task) == ("fps" in row.arguments)
    assert not is_clip(task) or family.frame_multiple >= 1


@pytest.mark.parametrize(("family", "task", "row"), ROWS, ids=NAMES)
def test_defaults_are_the_pipelines_own(family: Family, task: str, row: Route) -> None:
    parameters = _parameters(row)
    ours = {**family.defaults, **row.defaults}
    for column, argument in row.arguments.items():
        default = parameters[argument].default if argument else None
        is_ours = {(row.pipeline, column), (family.title, column)} & OTHER_DEFAULTS
        if column in ours and not is_ours and isinstance(default, int | float):
            assert (column, ours[column]) == (column, default)


@pytest.mark.parametrize(("family", "task", "row"), ROWS, ids=NAMES)
def test_a_default_that_a_pipeline_has_is_in_the_table(family: Family, task: str, row: Route) -> None:
    """Else a family's size follows from the folder's `sample_size`, and AuraFlow's is half of what it makes."""
    parameters = _parameters(row)
    ours = {**family.defaults, **row.defaults}.keys() | {"area"}
    numbers = {
        column
        for column, argument in row.arguments.items()
        if argument and isinstance(parameters[argument].default, int | float)
    }

    assert {(family.title, column) for column in numbers - ours} <= NATIVE


@pytest.mark.parametrize(("family", "task", "row"), ROWS, ids=NAMES)
def test_a_way_takes_every_column_that_its_pipeline_has_an_argument_for(family: Family, task: str, row: Route) -> None:
    columns = {"negative_prompt", "height", "width", "num_inference_steps", "guidance_scale", "strength", "num_frames"}
    left_out = columns & _parameters(row).keys() - row.arguments.keys()

    assert not {name for name in left_out if not {(row.pipeline, name), (family.title, name)} & NOT_TAKEN}


@pytest.mark.parametrize(("family", "task", "row"), ROWS, ids=NAMES)
def test_a_parameter_has_the_type_of_the_pipeline_s_own(family: Family, task: str, row: Route) -> None:
    for name, kind in row.parameters.items():
        default = _parameters(row)[name].default
        assert default is None or isinstance(default, kind if kind is not float else int | float)


@pytest.mark.parametrize(("family", "task", "row"), ROWS, ids=NAMES)
def test_only_classes_that_read_loras_take_them(family: Family, task: str, row: Route) -> None:
    if "loras" in row.arguments:
        assert hasattr(_pipeline(family.class_name), "load_lora_weights")
        assert hasattr(_pipeline(row.pipeline), "load_lora_weights")


def test_of_the_ways_of_a_task_none_hides_another() -> None:
    for family in FAMILIES.values():
        for task, rows in family.tasks.items():
            for row in rows:
                given = Given(row.images[1], row.sources, bool(row.keyframes))
                alike = [other for other in rows if other.takes(given)]
                assert family.route(task, given) is alike[0]
                needs = [other.components for other in alike]
                assert needs.index(row.components) == alike.index(row), (
                    f"{family.title}: {task}: {row.pipeline} is never reached"
                )


BASES = {
    EPSILON_SCHEDULERS: "EulerDiscreteScheduler",
    FLOW_SCHEDULERS: "FlowMatchEulerDiscreteScheduler",
    MOTION_SCHEDULERS: "DDIMScheduler",
    WAN_SCHEDULERS: "UniPCMultistepScheduler",
    COGVIDEOX_SCHEDULERS: "CogVideoXDDIMScheduler",
    EULER_SCHEDULERS: "EulerDiscreteScheduler",
}


NAMED_BY_PIPELINES = {"CogVideoXDPMScheduler", "LCMScheduler", "TCDScheduler"}
"""Schedulers that a pipeline's constructor or the documentation names, and whose siblings do not list them."""


@pytest.mark.parametrize("names", BASES, ids=[f"{len(names)} of {base}" for names, base in BASES.items()])
def test_every_scheduler_of_a_family_is_compatible_and_needs_no_package_but_those_named(names: tuple[str, ...]) -> None:
    base = _pipeline(BASES[names])()
    compatible = {cls.__name__ for cls in base.compatibles} | {BASES[names], *NAMED_BY_PIPELINES}

    assert set(names) <= compatible
    for name in sorted(set(names) - REQUIRES.keys()):
        scheduler = _pipeline(name).from_config(base.config)
        scheduler.set_timesteps(4)


def test_every_family_has_schedulers_that_are_tried() -> None:
    assert {family.schedulers for family in FAMILIES.values() if family.schedulers} <= BASES.keys()


@pytest.mark.parametrize(
    ("value", "nearest"), [(500, 504), (499, 496), (3, 8), (9000, 8192), (64, 64), (60, 64), (1, 8)]
)
def test_the_nearest_size_is_told(value: int, nearest: int) -> None:
    assert nearest_multiple(value, 8, 8, 8192) == nearest


@pytest.mark.parametrize(("num_frames", "multiple", "count"), [(1, 4, 1), (2, 4, 5), (5, 4, 5), (16, 8, 17), (7, 1, 7)])
def test_the_next_frame_count_is_one_the_family_makes(num_frames: int, multiple: int, count: int) -> None:
    assert next_frame_count(num_frames, multiple) == count


def test_cost_follows_published_counts_and_scales() -> None:
    sdxl = FAMILIES["Stable Diffusion XL"]

    def cost(**changes: Any) -> float:
        values = {"parameters": 0, "height": 1024, "width": 1024, "num_frames": 1, "steps": 20, "guided": True}
        return cost_tflop(sdxl, **{**values, **changes})

    assert cost() == pytest.approx(270.4, rel=0.01)  # 280.9 with the VAE, counted on the published architecture
    assert cost(guided=False) == cost() / 2
    assert cost(steps=40) == cost(height=2048) == cost() * 2


def test_exact_makes_rows_alone_where_a_call_of_several_may_move_their_bits() -> None:
    alone = {
        (family.title, task)
        for family in FAMILIES.values()
        for task, rows in family.tasks.items()
        if all(row.batch_of_one_in_exact for row in rows)
    }

    assert ("LTX-Video", "text-to-video") in alone
    assert ("Qwen-Image", "text-to-image") in alone
    assert not {name for name in alone if name[0] in {"Stable Diffusion XL", "Flux.1", "Z-Image"}}
    assert {task for _, task in alone} >= {"text-to-video", "image-to-video", "video-to-video"}


def test_one_more_family_is_one_more_file(tmp_path: Path) -> None:
    package = Path(sdbatch.__file__).parent
    (tmp_path / "sdbatch").mkdir()
    for entry in package.iterdir():
        if entry.name != "families":
            (tmp_path / "sdbatch" / entry.name).symlink_to(entry)
    families = shutil.copytree(package / "families", tmp_path / "sdbatch" / "families")
    (families / "new_model.py").write_text(
        "from dataclasses import replace\n"
        "from sdbatch.families.sana import FAMILIES as SANA\n"
        'FAMILIES = (replace(SANA[0], title="New", class_name="NewPipeline", when={"model_index.json new": True}),)\n'
    )
    script = (
        "from sdbatch.families import FAMILIES, find_family\n"
        'print("New" in FAMILIES, find_family("NewPipeline", lambda name: True).title, find_family("Newer", str))'
    )
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)

    assert result.stdout.split() == ["True", "New", "None"], result.stderr


def test_of_one_class_the_family_with_the_most_conditions_that_hold_is_found() -> None:
    facts = {"model_index.json expand_timesteps": True}

    assert find_family("WanPipeline", facts.get) is FAMILIES["Wan 2.2 TI2V"]
    assert find_family("WanPipeline", lambda _: None) is FAMILIES["Wan 2.1 T2V"]


def test_every_whole_number_that_a_row_may_hand_on_has_a_bound_of_its_own() -> None:
    whole = {
        name
        for family in FAMILIES.values()
        for routes in family.tasks.values()
        for route in routes
        for name, kind in route.parameters.items()
        if kind is int
    }

    assert whole == PARAMETER_BOUNDS.keys()


def test_every_number_of_the_manifest_has_bounds_on_both_sides() -> None:
    kinds = (pa.types.is_integer, pa.types.is_floating)
    numbers = [column for column in MANIFEST.values() if any(is_kind(column.type) for is_kind in kinds)]
    by_family = {column.name for column in numbers if column.family_bounds}

    assert by_family == {"height", "width", "num_frames"}
    for column in numbers:
        for value in (-math.inf, -1.0, math.nan, 1e300, 10**400):
            assert column.family_bounds or column.problem(value), (column.name, value)


@pytest.mark.parametrize(("family", "task", "row"), ROWS, ids=NAMES)
def test_the_table_knows_which_pipelines_tell_a_scheduler_its_shift(family: Family, task: str, row: Route) -> None:
    import diffusers

    if not {*FLOW_SCHEDULERS, *WAN_SCHEDULERS}.issuperset(family.schedulers):
        return
    source = inspect.getsource(getattr(diffusers, row.pipeline).__call__)

    assert (re.search(r"\bmu=mu\b|\"mu\"\W+=? ?mu\b", source) is None) == (row.pipeline in SAY_NO_SHIFT)


@pytest.mark.parametrize(("family", "task", "row"), ROWS, ids=NAMES)
def test_the_table_knows_which_pipelines_need_a_scheduler_that_scales_noise(
    family: Family, task: str, row: Route
) -> None:
    import diffusers

    source = inspect.getsource(getattr(diffusers, row.pipeline))

    needs = "scheduler.scale_noise(" in source and "scheduler.add_noise(" not in source
    assert needs == (row.pipeline in SCALE_NOISE)


@pytest.mark.parametrize(("family", "task", "row"), ROWS, ids=NAMES)
def test_the_table_knows_which_pipelines_call_fewer_schedulers_than_others(
    family: Family, task: str, row: Route
) -> None:
    import diffusers

    source = inspect.getsource(getattr(diffusers, row.pipeline).__call__)

    calls_fewer = "per_token_timesteps=" in source or "sigmas = get_default_z_image_sigmas(" in source
    calls_fewer |= family.schedulers == WAN_SCHEDULERS and "strength" in row.arguments
    assert calls_fewer == (row.pipeline in CALLED_ALONE)


def test_the_tables_of_schedulers_hold_those_that_are_told_of_a_flow_and_none_of_other_pipelines() -> None:
    import diffusers

    classes = {name: getattr(diffusers, name) for name in dir(diffusers) if name.endswith("Scheduler")}
    told = {name for name, cls in classes.items() if "use_flow_sigmas" in inspect.signature(cls).parameters}

    assert told - OF_OTHER_PIPELINES - {"HeliosDMDScheduler", "HeliosScheduler"} == set(TOLD_OF_FLOW)
    assert classes.keys() >= OF_OTHER_PIPELINES
    assert OF_OTHER_PIPELINES.isdisjoint({*EPSILON_SCHEDULERS, *OF_OWN_NOISE, *TOLD_OF_FLOW})
    assert {name for name in classes if "Inverse" in name} <= OF_OTHER_PIPELINES
