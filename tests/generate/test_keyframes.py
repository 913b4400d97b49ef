"""Key frames, counts, sizes and sound of clips: what a model is told, what comes out, what is refused before that.

Random weights paint no picture, so where a key frame lands is read from what the model is given; where it is decoded
as it stands (the first frame of TI2V) from the pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.studio import LTX2_BLOCKS, Case, Pixels, Studio, base_row, difference, picture, resolve

from sdbatch.generate.batch import make_batch
from sdbatch.generate.item import Item
from sdbatch.generate.memo import Memo

Models = Callable[[str], Studio]
SIZE = (64, 64)
THREE: dict[str, Any] = {"num_frames": 17, "keyframes": [0, 8, 16]}


def _row(model: str, task: str = "image-to-video", images: int = 0, **columns: Any) -> dict[str, Any]:
    return {**base_row(Case(model=model, task=task, images=images)), **columns}


def _signal(number: int, size: tuple[int, int] = SIZE) -> torch.Tensor:
    """Return a source as a VAE is shown it: image_CHW in -1..1."""
    return torch.from_numpy(picture(number, size)).permute(2, 0, 1) / 127.5 - 1


@contextmanager
def _heard(owner: Any, name: str) -> Iterator[list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    """Write down what a method is called with while the block runs."""
    method, calls = getattr(owner, name), []

    def listening(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return method(*args, **kwargs)

    setattr(owner, name, listening)
    try:
        yield calls
    finally:
        delattr(owner, name)


def _pipeline(made: Studio, row: dict[str, Any]) -> Any:
    """Return the row's pipeline; its model forgets what other tests had it encode, so that all is encoded anew."""
    made.loaded.memo = Memo()
    return made.loaded.pipeline(made.info.family.route_of(made.item(row).recipe), "")


def test_ltx_is_told_which_image_stands_at_which_frame(studio: Models) -> None:
    made, row = studio("ltx"), _row("ltx", images=3, **THREE)
    pipeline = _pipeline(made, row)

    with _heard(pipeline.vae, "encode") as shown, _heard(pipeline, "_scale_video_ids") as placed:
        frames = made.one(row).frames_FHWC

    assert len(frames) == 17
    assert len(shown) == 3
    for number, (args, _) in enumerate(shown, 1):
        torch.testing.assert_close(args[0][0, :, 0], _signal(number))
    assert [kwargs["frame_index"] for _, kwargs in placed[:-1]] == [8, 16]  # the first image replaces frame 0 itself


def test_ltx_2_is_told_frames_and_not_latent_frames(studio: Models) -> None:
    made, row = studio("ltx2"), _row("ltx2", images=3, **THREE, parameters=LTX2_BLOCKS)
    pipeline = _pipeline(made, row)

    with _heard(pipeline.vae, "encode") as shown, _heard(pipeline, "_prepare_keyframe_coords") as placed:
        made.one(row)

    assert len(shown) == 3
    assert [kwargs["pixel_frame_idx"] for _, kwargs in placed] == [8, 16]


def test_vace_keeps_key_frames_and_is_asked_for_the_rest(studio: Models) -> None:
    made, row = studio("wan-vace"), _row("wan-vace", images=3, **THREE)
    pipeline = _pipeline(made, row)

    with _heard(pipeline.vae, "encode") as shown, _heard(pipeline, "prepare_masks") as masked:
        made.one(row)

    kept_CFHW = shown[0][0][0][0]
    for number, frame in enumerate((0, 8, 16), 1):
        torch.testing.assert_close(kept_CFHW[:, frame], _signal(number))
    mask_F = masked[0][0][0][0].amax(dim=(0, 2, 3))
    assert [frame for frame in range(17) if mask_F[frame] < 0.5] == [0, 8, 16]


def test_sparsectrl_is_given_each_image_at_its_frame(studio: Models) -> None:
    made, row = studio("sparsectrl"), {**_row("sparsectrl", images=3, **THREE), "height": 32, "width": 32}
    pipeline = _pipeline(made, row)

    with _heard(pipeline, "prepare_sparse_control_conditioning") as placed, _heard(pipeline.vae, "encode") as shown:
        made.one(row)

    torch.testing.assert_close(shown[0][0][0], torch.stack([_signal(number, (32, 32)) for number in (1, 2, 3)]))
    assert placed[0][0][2] == [0, 8, 16]


def test_a_set_of_images_becomes_segments_from_first_to_last(studio: Models) -> None:
    made, row = studio("wan-i2v-a14b"), _row("wan-i2v-a14b", images=3, **THREE)
    pipeline = _pipeline(made, row)

    with _heard(pipeline.vae, "encode") as shown:
        frames = made.one(row).frames_FHWC

    conditions = [args[0][0] for args, _ in shown]
    for condition_CFHW, (first, last) in zip(conditions, [(1, 2), (2, 3)], strict=True):
        assert condition_CFHW.shape[1] == 9
        torch.testing.assert_close(condition_CFHW[:, 0], _signal(first))
        torch.testing.assert_close(condition_CFHW[:, -1], _signal(last))
        assert not condition_CFHW[:, 1:-1].any()
    assert len(frames) == 17
    # The frame two segments share stands once: next to a copy of itself it would differ by nothing.
    steps = [np.abs(one.astype(int) - two).mean() for one, two in itertools.pairwise(frames)]
    assert min(steps) > 1
    assert steps[7] > 1
    assert steps[8] > 1


def test_segments_do_not_repeat_each_other_s_noise(studio: Models) -> None:
    row = {**_row("wan-i2v-a14b", **THREE), "images": ["1", "1", "1"]}

    frames = studio("wan-i2v-a14b").one(row).frames_FHWC

    assert difference(frames[:9], frames[8:]) > 3


def test_the_first_frame_is_the_source_as_the_vae_shows_it(studio: Models) -> None:
    made, row = studio("wan-ti2v"), _row("wan-ti2v", images=1)
    vae = _pipeline(made, row).vae

    def shown(number: int) -> Pixels:
        with torch.inference_mode():
            latents = vae.encode(_signal(number)[None, :, None]).latent_dist.mode()
            pixels_CHW = vae.decode(latents).sample[0, :, 0]
        pixels: Pixels = ((pixels_CHW / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        return pixels

    frames = made.one(row).frames_FHWC

    assert difference(shown(1), shown(2)) > 50
    assert difference(frames[0], shown(1)) <= 1
    assert difference(frames[1], shown(1)) > 50


def test_two_rows_keep_each_its_image_where_lists_are_rows_and_share_no_call_where_they_are_not(
    studio: Models,
) -> None:
    one = _row("", images=1, num_frames=9)
    two = {**one, "images": ["2"]}
    cogvideox, wan = studio("cogvideox-i2v"), studio("wan-i2v")

    together = cogvideox.make(one, two)

    assert difference(together[0], together[1]) > 3
    assert difference(together[1], cogvideox.make(two)[0]) <= 1
    (a, b), _ = resolve(cogvideox.info, one, two)
    assert a.batch_key == b.batch_key
    (a, b, c), _ = resolve(wan.info, one, two, {**one, "seed": 5})
    assert a.batch_key != b.batch_key
    assert a.batch_key == c.batch_key


def test_seconds_are_made_at_the_next_count_and_cut_with_their_sound(studio: Models) -> None:
    made = studio("ltx2")
    row = _row("ltx2", "text-to-video", parameters=LTX2_BLOCKS, fps=24.0)
    row.pop("num_frames")

    whole = made.one({**row, "num_frames": 17})
    cut = made.one({**row, "duration_s": 0.5})

    assert whole.sound is not None
    assert cut.sound is not None
    assert len(whole.frames_FHWC) == 17
    assert len(cut.frames_FHWC) == 12
    assert difference(whole.frames_FHWC[:12], cut.frames_FHWC) == 0
    rate_hz = cut.sound.rate_hz
    assert cut.sound.samples_CT.shape == (2, rate_hz // 2)
    assert whole.sound.samples_CT.shape[1] / rate_hz == pytest.approx(17 / 24, rel=0.1)
    assert np.abs(cut.sound.samples_CT).max() > 0.01


def test_the_sound_changes_with_the_prompt(studio: Models) -> None:
    row = _row("ltx2", "text-to-video", num_frames=9, parameters=LTX2_BLOCKS)

    one, two = (output.sound for output in studio("ltx2").batch(row, {**row, "prompt": "zz blue sky"}).outputs)

    assert one is not None
    assert two is not None
    assert np.abs(one.samples_CT - two.samples_CT).max() > 1e-3


def test_a_count_that_the_pipeline_rounds_is_no_clip(studio: Models) -> None:
    made = studio("wan-t2v")
    item = made.item(_row("wan-t2v", "text-to-video"))
    rounded = Item(recipe=replace(item.recipe, num_frames=8), seed=1)

    with pytest.raises(RuntimeError, match="made 9 frames; the recipe asks for 8"):
        make_batch(made.loaded, [rounded], None)


def test_a_model_runs_without_a_cache_that_would_couple_its_rows(studio: Models) -> None:
    made = studio("wan-t2v")
    made.one(_row("wan-t2v", "text-to-video"))

    assert not _pipeline(made, _row("wan-t2v", "text-to-video")).transformer.is_cache_enabled


REFUSED = [
    ("wan-t2v", _row("", "text-to-video", num_frames=8), "num_frames", "is not of the form 4 k + 1; the nearest is 9"),
    ("ltx", _row("", "text-to-video", num_frames=13), "num_frames", "is not of the form 8 k + 1; the nearest is 17"),
    ("cogvideox", _row("", "text-to-video", num_frames=13), "num_frames", "is not of the form 8 k + 1"),
    ("wan-t2v", _row("", "text-to-video", height=72), "height", "is not a multiple of 16; the nearest is 80"),
    ("wan-ti2v", _row("", "text-to-video", height=48), "height", "is not a multiple of 32; the nearest is 64"),
    ("ltx2", _row("", "text-to-video", width=80), "width", "is not a multiple of 32; the nearest is 96"),
    ("ltx2", _row("", images=2, num_frames=25, keyframes=[0, 30]), "keyframes", "holds 30, which is not in 0..24"),
    ("ltx", _row("", images=2, num_frames=25, keyframes=[8, 8]), "keyframes", "is not ascending"),
    ("ltx", _row("", images=2, num_frames=25, keyframes=[8]), "keyframes", "has 1 frame(s) for 2 image(s)"),
    ("ltx", _row("", images=65, num_frames=97), "images", "has 65 source(s); the task takes 1 to 64"),
    ("wan-i2v-a14b", _row("", images=3, num_frames=17, keyframes=[0, 6, 16]), "keyframes", "the nearest is 8"),
    ("wan-i2v-a14b", _row("", images=2, num_frames=17, keyframes=[0, 8]), "keyframes", "end at 16"),
    ("wan-ti2v", _row("", images=2), "images", "has 2 source(s); the task takes 1"),
    ("wan-flf2v", _row("", images=1), "images", "has 1 source(s); the task takes 2 to 64"),
    ("svd", _row("", images=1, num_frames=25, keyframes=[3]), "keyframes", "the task takes no key frames"),
    ("wan-i2v", _row("", "text-to-video"), "task", "is not served by wan-i2v (Wan 2.1 I2V: image-to-video)"),
    (
        "cogvideox-1.5",
        _row("", "video-to-video", video="1", num_frames=9),
        "task",
        "(CogVideoX: text-to-video); it needs a model without transformer/config.json patch_size_t 2",
    ),
    ("wan-t2v", _row("", "text-to-video", scheduler="DDIMScheduler"), "scheduler", "is not a scheduler of Wan 2.1 T2V"),
    ("wan-t2v", _row("", "video-to-video", video="1", strength=0.2), "strength", "leaves no step of 2"),
    ("wan-t2v", _row("", "video-to-video", video="1", strength=1.0), "strength", "leaves nothing of the source"),
    ("svd", _row("", images=1, num_frames=25, loras=[{"name": "a", "weight": 1.0}]), "loras", "are not taken"),
]


@pytest.mark.parametrize(("model", "row", "column", "message"), REFUSED, ids=[f"{r[0]} {r[3][:40]}" for r in REFUSED])
def test_what_a_family_cannot_make_is_refused_with_the_nearest_it_can(
    model: str,
    row: dict[str, Any],
    column: str,
    message: str,
    studio: Models,
) -> None:
    _, faults = resolve(studio(model).info, row)

    assert column in [fault.column for fault in faults]
    assert any(message in fault.message for fault in faults), [fault.message for fault in faults]
