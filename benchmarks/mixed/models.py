"""The campaign's models: the benchmarks' own, one of the same classes with other weights, and one that makes clips."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter
from transformers import CLIPTextModel

from benchmarks import model, settings
from benchmarks.mixed.campaign import CLIPS_MODEL, MODELS


def make(folder: Path) -> Path:
    """Write every model into a folder of its own name and return `folder`."""
    for number, name in enumerate(MODELS):
        model.make(folder / name, seed=settings.SEED + number)
    _make_clips(folder / CLIPS_MODEL)
    return folder


def _make_clips(folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.SEED)
        pipeline = AnimateDiffPipeline(
            vae=model.vae(),
            text_encoder=CLIPTextModel(model.text_config()),
            tokenizer=model.letter_tokenizer(),
            unet=model.unet(),
            motion_adapter=MotionAdapter(
                block_out_channels=(4, 8),
                motion_layers_per_block=1,
                motion_num_attention_heads=2,
                motion_norm_num_groups=2,
                use_motion_mid_block=False,
            ),
            scheduler=DDIMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False, steps_offset=1
            ),
        )
    pipeline.save_pretrained(folder, safe_serialization=True)
