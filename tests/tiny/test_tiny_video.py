"""tiny-video: its judge, its fitted encoder, one way through its training; and what its trained weights make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import sdbatch
from sdbatch.checkpoints import SHIPPED
from sdbatch.encode.asset import read_frames
from tiny import principal, train_video, video_denoiser, video_shapes
from tiny.captions import is_held_out
from tiny.judge import judge
from tiny.judge_clips import motion, pan_of, ssim
from tiny.measure_video import KEY_FRAMES, Projector, asked, measure_edits
from tiny.moving import NUM_FRAMES, Scenario, clip_caption, draw_clip, ending, random_scenario

Clips = NDArray[np.uint8]
JobOf = Callable[..., dict[str, Any]]
WriteManifest = Callable[..., str]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def scenarios() -> list[Scenario]:
    generator = np.random.default_rng(77)
    return [random_scenario(generator) for _ in range(24)]


@pytest.fixture(scope="module")
def clips_NFHWC(scenarios: list[Scenario]) -> Clips:
    return np.stack([draw_clip(scenario) for scenario in scenarios])


def test_the_judge_tells_pans_of_drawn_clips_and_of_clips_run_backwards(
    scenarios: list[Scenario], clips_NFHWC: Clips
) -> None:
    opposite = {"left": "right", "right": "left", "still": "still"}

    assert [pan_of(clip) for clip in clips_NFHWC] == [scenario.pan for scenario in scenarios]
    assert [pan_of(clip[::-1]) for clip in clips_NFHWC] == [opposite[scenario.pan] for scenario in scenarios]


def test_likeness_is_one_for_a_picture_itself_and_small_for_another(clips_NFHWC: Clips) -> None:
    one, two = clips_NFHWC[0, 0], clips_NFHWC[1, 0]
    softer = (one.astype(int) * 0.9 + 12).astype(np.uint8)

    assert ssim(one, one) == pytest.approx(1.0)
    assert ssim(one, two) < 0.5 < ssim(one, softer) < 1.0
    assert motion(np.repeat(clips_NFHWC[0, :1], 3, axis=0)) == 0.0


@pytest.fixture(scope="module")
def fitted(clips_NFHWC: Clips) -> Any:
    vae = video_shapes.autoencoder()
    principal.fit(vae, train_video.as_input(clips_NFHWC[:20]))
    return vae


@pytest.mark.long
def test_a_fitted_autoencoder_keeps_unseen_clips_without_training(fitted: Any, clips_NFHWC: Clips) -> None:
    unseen_NFHWC = clips_NFHWC[20:]
    untrained = train_video.autoencoder_error(video_shapes.autoencoder(), unseen_NFHWC)

    assert train_video.autoencoder_error(fitted, unseen_NFHWC) < 12 < 60 < untrained


@pytest.mark.long
def test_a_picture_is_the_first_latent_of_a_clip_that_begins_with_it(fitted: Any, clips_NFHWC: Clips) -> None:
    clip_BCFHW = train_video.as_input(clips_NFHWC[:2])
    with torch.inference_mode():
        whole, first = (fitted.encode(shown).latent_dist.mean for shown in (clip_BCFHW, clip_BCFHW[:, :, :1]))

    assert whole.shape[2] == (NUM_FRAMES - 1) // video_shapes.FRAMES_PER_LATENT + 1
    torch.testing.assert_close(whole[:, :, :1], first)


def test_no_training_clip_begins_or_ends_with_a_combination_that_is_held_out() -> None:
    trained = [scenario for reel in range(40) for scenario in train_video.reel_scenarios(reel)]
    (_, known), (_, strange) = asked(60, seed=0), asked(60, seed=0, held_out=True)

    assert not any(is_held_out(shown) for scenario in trained for shown in (scenario.landscape, ending(scenario)))
    assert all(is_held_out(scenario.landscape) for scenario in strange)
    assert not {scenario.landscape for scenario in trained} & {scenario.landscape for scenario in known}


@pytest.mark.long
def test_training_goes_on_where_it_was_stopped(fitted: Any, scenarios: list[Scenario], clips_NFHWC: Clips) -> None:
    latents_NFCHW, keys_NKCHW, key_frames_NK = train_video.clip_latents(fitted, clips_NFHWC[:6])
    clips = video_denoiser.Shown(
        clips_NFCHW=latents_NFCHW,
        keys_NKCHW=keys_NKCHW,
        key_frames_NK=key_frames_NK,
        caption=lambda index, generator: clip_caption(scenarios[index], generator),
        batch=2,
    )
    short = train_video.shortened(clips, scenarios[:6])
    pictures = video_denoiser.Shown(
        clips_NFCHW=latents_NFCHW[:, :1],
        keys_NKCHW=keys_NKCHW[:, :0],
        key_frames_NK=key_frames_NK[:, :0],
        caption=clips.caption,
        batch=2,
    )
    straight, _ = _trained({2: pictures, 4: short, 6: clips}, stops=(6,))
    stopped, losses = _trained({2: pictures, 4: short, 6: clips}, stops=(3, 6))

    assert len(short.clips_NFCHW) >= 2
    assert short.clips_NFCHW.shape[1] == train_video.SHORT_LATENTS
    assert (short.key_frames_NK <= 2 * (train_video.SHORT_LATENTS - 1)).all()
    assert len(losses) == 6
    assert all(np.isfinite(losses))
    for one, two in zip(straight, stopped, strict=True):
        torch.testing.assert_close(one, two)


def _trained(
    shown_until: dict[int, video_denoiser.Shown], stops: tuple[int, ...]
) -> tuple[list[torch.Tensor], list[float]]:
    """Train, but end at some steps and go on with what was kept there; return the averaged weights and the losses."""
    tokenizer = video_shapes.tokenizer()
    kept: dict[str, Any] = {}
    for stop in stops:
        torch.manual_seed(3)
        parts, averages = (
            torch.nn.ModuleDict(
                {"transformer": video_shapes.denoiser(), "text_encoder": video_shapes.text_encoder(tokenizer)}
            )
            for _ in range(2)
        )
        averages.load_state_dict(parts.state_dict())
        state: dict[str, Any] = {"step": 0, "losses": []}
        if kept:
            parts.load_state_dict(kept["parts"])
            averages.load_state_dict(kept["averages"])
            state = kept["state"]
        averages.requires_grad_(requires_grad=False)
        video_denoiser.train(parts, averages, tokenizer, shown_until, state=state, keep=lambda: None, stop=stop)
        kept = {"parts": parts.state_dict(), "averages": averages.state_dict(), "state": state}
    return list(averages.parameters()), state["losses"]


# --- the trained weights: a small part of `python -m tiny.measure_video` -----------------------------


@pytest.fixture(scope="module")
def projector() -> Projector:
    return Projector()


@pytest.mark.long
def test_a_clip_moves_and_darkens_as_its_prompt_says(projector: Projector) -> None:
    prompts, scenarios = asked(12, seed=10)
    made_NFHWC = projector.show(prompts, seed=10)
    begins, ends = judge(made_NFHWC[:, 0]), judge(made_NFHWC[:, -1])
    pans = [pan_of(clip) == scenario.pan for clip, scenario in zip(made_NFHWC, scenarios, strict=True)]
    times = [
        (begin.time, end.time) == (scenario.landscape.time, ending(scenario).time)
        for begin, end, scenario in zip(begins, ends, scenarios, strict=True)
    ]
    drawn = np.mean([motion(draw_clip(scenario)) for scenario in scenarios])

    assert sum(pans) >= 10
    assert sum(times) >= 10
    assert 0.6 < np.mean([motion(clip) for clip in made_NFHWC]) / drawn < 1.4


@pytest.mark.long
def test_a_clip_begins_with_the_picture_it_is_given(projector: Projector) -> None:
    prompts, scenarios = asked(3, seed=11)
    for prompt, scenario in zip(prompts, scenarios, strict=True):
        source_HWC = draw_clip(scenario)[0]

        assert ssim(projector.animate(prompt, source_HWC)[0], projector.round_trip(source_HWC)) >= 0.9


@pytest.mark.long
def test_a_clip_passes_through_its_key_frames_and_moves_between(projector: Projector) -> None:
    prompts, scenarios = asked(4, seed=12)
    likeness, made, drawn = [], [], []
    for prompt, scenario in zip(prompts, scenarios, strict=True):
        drawn_FHWC = draw_clip(scenario)
        keys_KHWC = drawn_FHWC[list(KEY_FRAMES)]
        passed_FHWC = projector.pass_through(prompt, keys_KHWC, KEY_FRAMES)
        likeness.append([ssim(passed_FHWC[frame], key) for frame, key in zip(KEY_FRAMES, keys_KHWC, strict=True)])
        made.append(motion(passed_FHWC))
        drawn.append(motion(drawn_FHWC))

    assert np.mean(likeness, axis=0).min() >= 0.8
    assert 0.6 < np.mean(made) / np.mean(drawn) < 1.4


@pytest.mark.long
def test_a_clip_of_a_day_becomes_one_of_a_night_and_keeps_its_pan(projector: Projector) -> None:
    figures = measure_edits(projector, 3)
    night, pan, same, other = figures.values()

    assert night == pan == 1.0
    assert other + 0.1 < same < 1.0


@pytest.mark.long
def test_a_campaign_makes_clips_from_prompts_a_picture_and_key_frames(
    tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf
) -> None:
    (prompt,), (scenario,) = asked(1, seed=13)
    drawn_FHWC = draw_clip(scenario)
    files = [str(tmp_path / f"{frame}.png") for frame in KEY_FRAMES]
    for frame, file in zip(KEY_FRAMES, files, strict=True):
        Image.fromarray(drawn_FHWC[frame]).save(file)
    rows = [
        {"id": "said", "prompt": "a desert by day, camera pans left"},
        {"id": "begun", "prompt": prompt, "task": "image-to-video", "images": files[:1]},
        {"id": "passed", "prompt": prompt, "task": "image-to-video", "images": files, "keyframes": list(KEY_FRAMES)},
    ]
    video = {"path": "builtin:tiny-video", "batch_size": 1}
    defaults = {"task": "text-to-video", "model": "tiny-video", "num_inference_steps": 20}
    job = sdbatch.load_job(job_of(write_manifest(rows), models={"tiny-video": video}, defaults=defaults))
    result = sdbatch.run(job, in_process=True)
    made = {row["id"]: row for row in sdbatch.metadata(job).to_pylist()}
    clips = {
        name: read_frames((Path(job.output) / row["asset"]).read_bytes(), "mp4", 64, 64) for name, row in made.items()
    }

    assert result.exit_code == 0
    assert {(row["num_frames"], row["fps"], row["guidance_scale"]) for row in made.values()} == {(NUM_FRAMES, 8.0, 2.0)}
    assert pan_of(clips["said"]) == "left"
    assert judge(clips["said"][:1].copy())[0].time == "day"
    assert ssim(clips["begun"][0], drawn_FHWC[0]) >= 0.8
    assert min(ssim(clips["passed"][frame], drawn_FHWC[frame]) for frame in KEY_FRAMES) >= 0.7


def test_both_models_weights_fit_into_24_mib() -> None:
    files = [file for name in ("tiny-sd", "tiny-video") for file in SHIPPED[name].rglob("*") if file.is_file()]

    assert sum(file.stat().st_size for file in files) <= 24 << 20
    assert {file.suffix for file in files} <= {".json", ".safetensors", ".txt"}
