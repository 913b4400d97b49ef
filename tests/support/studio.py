"""A studio for the tests of clips: rows are resolved, loaded and made as in a run, without store or Ray.

row --> Resolver --> recipe + sources --> make_batch() --> frames (and sound)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdbatch.checkpoints import ModelInfo, describe
from sdbatch.generate.batch import make_batch
from sdbatch.generate.item import BatchResult, Generated, Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.job import parse_job
from sdbatch.plan.problems import RowProblem
from sdbatch.plan.resolve import Resolver
from sdbatch.recipe import parse_recipe
from support.resolved import rows_of
from support.revisions import PINNED
from support.toy_clips import MAKERS, make_motion_adapter, make_sparse_controlnet

Pixels = NDArray[np.uint8]
_DIGESTS = {str(number): f"sha256:{number}" for number in range(1000)}
LTX2_BLOCKS = '{"spatio_temporal_guidance_blocks": [1]}'
"""The toy has 2 blocks; the default names the 29th."""
KANDINSKY_TEXT = '{"max_sequence_length": 1024}'
"""The text around a prompt has as many letters as the default allows tokens, and the toy's tokens are letters."""


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
        recipe = parse_recipe(resolved.recipe)
        size = (recipe.height, recipe.width)
        images = tuple(picture(int(name), size) for name in row.get("images", ()))
        video = clip(int(row["video"]), recipe.num_frames or 1, size) if "video" in row else None
        return Item(recipe=recipe, seed=recipe.seed, images=images, video=video)

    def batch(self, *rows: dict[str, Any]) -> BatchResult:
        return make_batch(self.loaded, [self.item(row) for row in rows], None)

    def make(self, *rows: dict[str, Any]) -> list[Pixels]:
        return [output.frames_FHWC for output in self.batch(*rows).outputs]

    def one(self, row: dict[str, Any]) -> Generated:
        return self.batch(row).outputs[0]


def resolve(info: ModelInfo, *rows: dict[str, Any]) -> tuple[list[Any], list[RowProblem]]:
    job = parse_job({"manifest": "m", "output": "o", "models": {info.name: {"path": "p"}}, "seed": 11})
    # What a pipeline's tokenizer wants beside transformers, a toy's may do without.
    resolver = Resolver(job, {info.name: info}, lambda _: None, lambda url: url, loads_here=False)
    names = dict.fromkeys(name for row in rows for name in row)
    found, faults = resolver.resolve({name: [row.get(name) for row in rows] for name in names}, len(rows), _DIGESTS)
    return rows_of(found, faults, len(rows)), faults


def picture(number: int, size: tuple[int, int]) -> Pixels:
    """Return 4 x 4 patches of loud colours; image_HWC."""
    patches = np.random.default_rng(number).integers(0, 2, (4, 4, 3)).astype(np.uint8) * 255
    return np.kron(patches, np.ones((size[0] // 4, size[1] // 4, 1), dtype=np.uint8))


def clip(number: int, num_frames: int, size: tuple[int, int]) -> Pixels:
    return np.stack([picture(100 * number + frame, size) for frame in range(num_frames)])


def open_studio(name: str, folder: Path, **further: Any) -> Studio:
    """Build a model in a folder and load it, with further options of its entry in a job."""
    options = {**_options(name, folder), **further}
    model = parse_job({"manifest": "m", "output": "o", "models": {name: options}}).models[name]
    info = describe(name, model, {})
    return Studio(info, load_model(name, model, info.revision, {}))


def _options(name: str, folder: Path) -> dict[str, Any]:
    if name != "sd":
        MAKERS[name](folder)
        return {"path": str(folder), "revision": PINNED}
    make_motion_adapter(folder / "motion")
    make_sparse_controlnet(folder / "sparse")
    further = {"motion_adapter": str(folder / "motion"), "controlnet": str(folder / "sparse")}
    return {"path": "builtin:tiny-random", "revision": PINNED, **further}


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
