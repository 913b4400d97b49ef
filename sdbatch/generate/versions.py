"""Which versions and which device a worker's pixels come from."""

from __future__ import annotations

import importlib.metadata
import zlib
from typing import Any

import diffusers
import PIL
import torch
import transformers

from sdbatch import ffmpeg
from sdbatch.generate.device import driver_version


def worker_versions(*, uses_gpu: bool) -> dict[str, str]:
    """Return the versions of what makes and encodes an output, and the GPU's name, by what they are called.

    Args:
        uses_gpu: Whether a model of the job may run on a GPU. `GPU`, its `driver` and `cuDNN` are "" without one,
            `CUDA` where torch was built without it.

    Raises:
        FfmpegFailed: When the bundled ffmpeg does not run.
    """
    cudnn: Any = torch.backends.cudnn
    has_gpu = uses_gpu and torch.cuda.is_available()
    return {
        "sdbatch": importlib.metadata.version("sdbatch"),
        "torch": str(torch.__version__),
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "Pillow": PIL.__version__,
        "ffmpeg": ffmpeg.version(),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "CUDA": torch.version.cuda or "",
        "cuDNN": str(cudnn.version() or "") if has_gpu else "",
        "GPU": torch.cuda.get_device_name() if has_gpu else "",
        "driver": driver_version() if has_gpu else "",
    }
