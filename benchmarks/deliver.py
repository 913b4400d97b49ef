"""What a delivery costs beside its encoders: drawn masters, six formats, processor seconds.

    python benchmarks/deliver.py [--stills 200] [--clips 6]

Both arms are one process. The delivery reads, checks, decodes, fits, encodes and puts; the other arm is handed the
fitted pixels and calls the same encoders with the same settings, bisections included. Then: again, one master anew.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.masters import draw_campaign, key_of, noise  # noqa: E402

import sdbatch  # noqa: E402
from sdbatch.deliver.placing import Focus, placed  # noqa: E402
from sdbatch.deliver.stills import encoded, fitted  # noqa: E402
from sdbatch.ffmpeg import running  # noqa: E402
from sdbatch.formats import CLIPS  # noqa: E402
from sdbatch.named_formats import formats_of  # noqa: E402

FORMATS: list[Any] = [
    "instagram-post",
    "display-300x250",
    {"name": "web", "width": 640, "height": 640, "type": "webp", "bytes_max": 60_000},
    {"name": "small", "width": 400, "height": 300, "type": "avif"},
    {"name": "reel", "width": 540, "height": 960, "type": "mp4"},
    {"name": "loop", "width": 320, "height": 320, "type": "webm"},
]
SIDE, CLIP_SIDE, FRAMES = 768, 384, 24


def cpu_s() -> float:
    """Return the processor seconds of this process and of those it waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returned, and its processor seconds."""
    before = cpu_s()
    result = call()
    return result, cpu_s() - before


def picture(number: int) -> Any:
    """Return image_HWC that looks to an encoder like a photograph: soft, with some grain."""
    small = Image.fromarray(noise(96, 96, number)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(number).integers(-4, 5, (SIDE, SIDE, 1))
    return (np.asarray(small).astype(int) + grain).clip(0, 255).astype(np.uint8)


def clip(number: int) -> Any:
    """Return frames_FHWC that pan over a picture."""
    wide = picture(number)
    return np.stack([wide[frame : frame + CLIP_SIDE, 4 * frame : 4 * frame + CLIP_SIDE] for frame in range(FRAMES)])


def encoders_alone_s(pictures: list[Any], clips: list[Any]) -> float:
    """Return the processor seconds of the encoders, given pixels that fit already."""
    total_s = 0.0
    for one in formats_of(FORMATS):
        size = (one.width, one.height)
        for pixels in clips if one.is_clip else pictures:
            own = (pixels.shape[-2], pixels.shape[-3])
            place = placed(own, size, one.fit, Focus(), 2)
            frames = [
                fitted(Image.fromarray(f), place, size, one.fit, (0, 0, 0))
                for f in (pixels if one.is_clip else [pixels])
            ]
            if not one.is_clip:
                total_s += timed(functools.partial(encoded, frames[0], one, 40, 95))[1]
                continue
            total_s += _clip_alone_s(frames, one)
    return total_s


def _clip_alone_s(frames: list[Image.Image], one: Any) -> float:
    written = CLIPS[one.type]
    raw = ["-f", "rawvideo", "-s", f"{one.width}x{one.height}"]
    with tempfile.TemporaryDirectory() as name:
        yuv = Path(name) / "yuv"
        with running(
            [*raw, "-pix_fmt", "rgb24", "-i", "pipe:0", "-f", "rawvideo", "-pix_fmt", "yuv420p", str(yuv)], timeout_s=60
        ) as (stdin, _):
            stdin.write(b"".join(frame.tobytes() for frame in frames))
        arguments = [
            *raw,
            "-pix_fmt",
            "yuv420p",
            "-framerate",
            "8",
            "-i",
            str(yuv),
            "-c:v",
            *written.video,
            "-crf",
            str(written.crf),
        ]

        def encode() -> None:
            with running([*arguments, *written.more, "-f", written.muxer, str(Path(name) / "out")], timeout_s=600):
                pass

        return timed(encode)[1]


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stills", type=int, default=200)
    parser.add_argument("--clips", type=int, default=6)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["SDBATCH_CACHE"] = name
        pixels = {f"still-{n}": picture(n) for n in range(wanted.stills)}
        pixels |= {f"clip-{n}": clip(n) for n in range(wanted.clips)}
        rows = [{"id": request_id} for request_id in pixels]
        campaign = Path(name) / "campaign"
        draw_campaign(campaign, rows, pixels)
        delivery = {"delivery": "d", "campaign": str(campaign), "to": f"{name}/out", "formats": FORMATS, "processes": 1}
        begun_s = time.monotonic()
        first, delivery_s = timed(lambda: sdbatch.deliver(delivery))
        wall_s = time.monotonic() - begun_s
        again, again_s = timed(lambda: sdbatch.deliver(delivery))
        stills = [pixels[row["id"]] for row in rows if row["id"].startswith("still")]
        clips = [pixels[row["id"]] for row in rows if row["id"].startswith("clip")]
        alone_s = encoders_alone_s(stills, clips)
        new = {"still-0": picture(10_000)}
        keys = {"still-0": key_of("anew")}
        others = {request_id: value for request_id, value in pixels.items() if request_id != "still-0"}
        draw_campaign(campaign, rows, {**others, **new}, keys=keys)
        anew = sdbatch.deliver(delivery)
        figures = {
            "files": first.files,
            "failed": len(first.failed),
            "mib": round(first.bytes_made / 2**20, 1),
            "delivery_cpu_s": round(delivery_s, 1),
            "delivery_wall_s": round(wall_s, 1),
            "encoders_alone_cpu_s": round(alone_s, 1),
            "ratio": round(delivery_s / alone_s, 3),
            "cpu_ms_a_file": round(1000 * delivery_s / first.files, 1),
            "again_made": again.made,
            "again_cpu_s": round(again_s, 2),
            "one_master_anew_made": anew.made,
        }
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
