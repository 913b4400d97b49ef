"""Clips from real diffusers classes at toy size: rows are resolved, loaded and made as in a run, without store or Ray.

row --> Resolver --> recipe + sources --> make_batch() --> frames (and sound)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests_models_clips import MAKERS, make_motion_adapter, make_sparse_controlnet

from sdbatch.config import parse_job
from sdbatch.generate.batch import BatchResult, Generated, Item, make_batch, set_threads
from sdbatch.generate.loading import LoadedModel, load_model
from sdbatch.models import ModelInfo, describe
from sdbatch.plan.resolve import Fault, Resolver

Pixels = NDArray[np.uint8]
LTX2_BLOCKS = '{"spatio_temporal_guidance_blocks": [1]}'
"""The toy has 2 blocks; the default names the 29th."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way of one model.

    Attributes:
        model: Of `MAKERS`, or `sd` with the folders of `further`.
        task: Its name.
        images: Source images.
        video: Whether it takes a clip.
        row: Further columns.
        size: Height and width, pixels.
        unread: Columns the model does not read.
    """

    model: str
    task: str
    images: int = 0
    video: bool = False
    row: dict[str, Any] = field(default_factory=dict)
    size: int = 64
    unread: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        source = f"{self.images} images" if self.images else "a clip" if self.video else "text"
        return f"{self.model}: {self.task} from {source}"


CASES = [
    Case(model="sd", task="text-to-video", row={"num_frames": 4}, size=32),
    Case(model="sd", task="image-to-video", images=2, row={"num_frames": 4}, size=32),
    Case(model="animatediff", task="text-to-video", row={"num_frames": 4}, size=32),
    Case(model="animatediff", task="video-to-video", video=True, row={"num_frames": 4}, size=32),
    Case(model="sparsectrl", task="image-to-video", images=2, row={"num_frames": 4}, size=32),
    Case(model="svd", task="image-to-video", images=1, row={"num_frames": 4}, unread=frozenset({"prompt"})),
    Case(model="wan-t2v", task="text-to-video"),
    Case(model="wan-t2v", task="video-to-video", video=True, row={"strength": 0.5}),
    Case(model="wan-t2v-a14b", task="text-to-video", row={"parameters": '{"guidance_scale_2": 3.0}'}),
    Case(model="wan-ti2v", task="text-to-video"),
    Case(model="wan-ti2v", task="image-to-video", images=1),
    Case(model="wan-i2v", task="image-to-video", images=1),
    Case(model="wan-flf2v", task="image-to-video", images=2),
    Case(model="wan-i2v-a14b", task="image-to-video", images=1),
    Case(model="wan-i2v-a14b", task="image-to-video", images=3, row={"num_frames": 9}),
    Case(model="wan-vace", task="text-to-video"),
    Case(model="wan-vace", task="image-to-video", images=2),
    Case(model="wan-vace", task="video-to-video", video=True),
    Case(model="ltx", task="text-to-video", row={"num_frames": 9}),
    Case(model="ltx", task="image-to-video", images=1, row={"num_frames": 9}),
    Case(model="ltx", task="image-to-video", images=3, row={"num_frames": 9}),
    Case(model="ltx", task="video-to-video", video=True, row={"num_frames": 9, "strength": 0.5}),
    Case(model="ltx2", task="text-to-video", row={"num_frames": 9, "parameters": LTX2_BLOCKS}),
    Case(model="ltx2", task="image-to-video", images=1, row={"num_frames": 9, "parameters": LTX2_BLOCKS}),
    Case(model="ltx2", task="image-to-video", images=3, row={"num_frames": 9, "parameters": LTX2_BLOCKS}),
    Case(model="cogvideox", task="text-to-video", row={"num_frames": 9}),
    Case(model="cogvideox", task="video-to-video", video=True, row={"num_frames": 9, "strength": 0.5}),
    Case(model="cogvideox-i2v", task="image-to-video", images=1, row={"num_frames": 9}),
    Case(model="hunyuan", task="text-to-video"),
    Case(model="hunyuan-i2v", task="image-to-video", images=1),
]


@dataclass(frozen=True)
class Studio:
    """A loaded model and what the planner knows of it."""

    info: ModelInfo
    loaded: LoadedModel

    def item(self, row: dict[str, Any]) -> Item:
        """Resolve a row; a source's name is the seed of its pixels."""
        (resolved,), faults = resolve(self.info, row)
        assert faults == []
        assert resolved is not None
        recipe = json.loads(resolved.recipe)
        size = (recipe["height"], recipe["width"])
        images = tuple(picture(int(name), size) for name in row.get("images", ()))
        video = clip(int(row["video"]), recipe["num_frames"], size) if "video" in row else None
        return Item(recipe=recipe, seed=recipe["seed"], images=images, video=video)

    def batch(self, *rows: dict[str, Any]) -> BatchResult:
        return make_batch(self.loaded, [self.item(row) for row in rows], None)

    def make(self, *rows: dict[str, Any]) -> list[Pixels]:
        return [output.frames_FHWC for output in self.batch(*rows).outputs]

    def one(self, row: dict[str, Any]) -> Generated:
        return self.batch(row).outputs[0]


def resolve(info: ModelInfo, *rows: dict[str, Any]) -> tuple[list[Any], list[Fault]]:
    job = parse_job({"manifest": "m", "output": "o", "models": {info.name: {"path": "p"}}, "seed": 11})
    resolver = Resolver(job, {info.name: info}, lambda _: None, lambda url: url)
    names = dict.fromkeys(name for row in rows for name in row)
    return resolver.resolve({name: [row.get(name) for row in rows] for name in names}, len(rows), {})


def picture(number: int, size: tuple[int, int]) -> Pixels:
    """Return 4 x 4 patches of loud colours; image_HWC."""
    patches = np.random.default_rng(number).integers(0, 2, (4, 4, 3)).astype(np.uint8) * 255
    return np.kron(patches, np.ones((size[0] // 4, size[1] // 4, 1), dtype=np.uint8))


def clip(number: int, num_frames: int, size: tuple[int, int]) -> Pixels:
    return np.stack([picture(100 * number + frame, size) for frame in range(num_frames)])


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Studio]:
    """Return a model by name, built and loaded once."""
    set_threads(1)
    found: dict[str, Studio] = {}

    def get(name: str) -> Studio:
        if name not in found:
            options = _options(name, tmp_path_factory.mktemp(name))
            model = parse_job({"manifest": "m", "output": "o", "models": {name: options}}).models[name]
            info = describe(name, model, {})
            found[name] = Studio(info, load_model(name, model, info.revision, {}))
        return found[name]

    return get


def _options(name: str, folder: Path) -> dict[str, Any]:
    if name != "sd":
        MAKERS[name](folder)
        return {"path": str(folder), "revision": "pinned"}
    make_motion_adapter(folder / "motion")
    make_sparse_controlnet(folder / "sparse")
    further = {"motion_adapter": str(folder / "motion"), "controlnet": str(folder / "sparse")}
    return {"path": "builtin:tiny-sd", "revision": "pinned", **further}


def base_row(case: Case) -> dict[str, Any]:
    sources: dict[str, Any] = {"images": [str(number) for number in range(1, case.images + 1)]} if case.images else {}
    if case.video:
        sources["video"] = "1"
    texts = {"prompt": "a red fox", "negative_prompt": "ugly"}
    return {
        "id": "a",
        "task": case.task,
        **({} if "prompt" in case.unread else texts),
        "height": case.size,
        "width": case.size,
        "num_frames": 5,
        "num_inference_steps": 2,
        "seed": 1,
        **sources,
        **case.row,
    }


def difference(one: Pixels, two: Pixels) -> int:
    """Return the largest difference in 255ths."""
    return int(np.abs(one.astype(int) - two).max())


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_clip_depends_on_its_row_and_on_nothing_else(case: Case, studio: Callable[[str], Studio]) -> None:
    made = studio(case.model)
    row = base_row(case)
    item = made.item(row)
    shares = made.info.family.way_of(item.recipe).rows
    other = _others(case, row)

    changed: dict[str, Pixels] = {}
    if shares == "single":
        first, again = made.make(row)[0], made.make(row)[0]
    else:
        first, changed["seed"] = made.make(row, other["seed"])
        neighbour = "video" if case.video else "last image" if shares == "list" and case.images else "prompt"
        again, changed[neighbour] = made.make(row, other[neighbour])
        # Its place in a batch and the batch's size may change the last bits, a mix-up changes much more.
        assert difference(changed[neighbour], made.make(other[neighbour])[0]) <= 1
    changed |= {name: made.make(other[name])[0] for name in other.keys() - changed.keys()}

    assert first.shape == (item.recipe["num_frames"], case.size, case.size, 3)
    assert first.dtype == np.uint8
    for name, frames in changed.items():
        assert difference(first, frames) >= 3, name
    assert difference(first, again) == 0


def _others(case: Case, row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the row with one thing changed, by the thing's name."""
    other: dict[str, dict[str, Any]] = {"seed": {**row, "seed": 2}}
    if "prompt" not in case.unread:
        other["prompt"] = {**row, "prompt": "zz blue sky"}
    if case.images:
        other["last image"] = {**row, "images": [*row["images"][:-1], "9"]}
    if case.video:
        other["video"] = {**row, "video": "9"}
    return other
