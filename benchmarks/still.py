"""Workers whose model sleeps: all that is around it is real, so what the model waits for shows.

StillWorker: flat pictures, cheap to encode    DrawingWorker: noise, which takes the encoder ENCODE_S a row
FetchingWorker: as StillWorker, and every source takes SOURCE_S to arrive
"""

from __future__ import annotations

import os
import time
from typing import Any

import sdbatch.fetch.sources
import sdbatch.worker.sources
from benchmarks import probe
from sdbatch.worker import Worker

ROW_S = "SDBATCH_BENCH_ROW_S"
"""Environment variable: seconds that a row sleeps in the model."""

SIZE_PX = 320
SOURCE_S = 0.03


def picture(*, is_noise: bool) -> Any:
    """Return what the model gives, as floats: picture_CHW; flat but for one value, or noise of a fixed seed."""
    import torch

    if is_noise:
        return torch.rand(3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(1))
    flat = torch.full((3, SIZE_PX, SIZE_PX), 0.5)
    flat[0, 0, 0] = 1.0
    return flat


class StillWorker(Worker):
    """The worker, its pipeline's call replaced by a sleep."""

    is_noise = False

    def start(self) -> dict[str, str]:
        """Start, then put the model to sleep."""
        from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
        from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput

        facts = super().start()
        picture_CHW = picture(is_noise=self.is_noise)
        row_s = float(os.environ[ROW_S])

        def sleep(_: Any, *__: Any, generator: list[Any], **___: Any) -> Any:
            begin_s = time.time()
            time.sleep(row_s * len(generator))
            probe.note("call", begin_s, len(generator))
            images = picture_CHW.expand(len(generator), -1, -1, -1)
            return StableDiffusionPipelineOutput(images=images, nsfw_content_detected=None)

        for cls in (StableDiffusionPipeline, StableDiffusionImg2ImgPipeline):
            cls.__call__ = sleep
        return facts


class DrawingWorker(StillWorker):
    """Makes pictures that are dear to encode."""

    is_noise = True


class FetchingWorker(StillWorker):
    """Reads its sources from afar."""

    def start(self) -> dict[str, str]:
        """Start, then move the sources away."""
        facts = super().start()
        read = sdbatch.fetch.sources.read_source

        def read_slowly(*arguments: Any) -> Any:
            time.sleep(SOURCE_S)
            return read(*arguments)

        vars(sdbatch.worker.sources)["read_source"] = read_slowly
        return facts
