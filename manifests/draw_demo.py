"""Draw the demo's sources: a beach, its sky's mask, a city in pencil, mountains in motion. Always the same."""

import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from tiny.moving import FPS, Scenario, draw_clip
from tiny.world import SIZE, Landscape, draw

BEACH = Landscape(scene="beach", time="day", weather="clear", style="photo", has_orb=True, has_feature=True, seed=5)
CITY = Landscape(scene="city", time="day", weather="clear", style="sketch", has_orb=True, has_feature=True, seed=3)
PEAKS = Landscape(
    scene="mountains", time="day", weather="winter", style="photo", has_orb=True, has_feature=False, seed=8
)
CLIP = Scenario(landscape=PEAKS, pan="right", is_setting=True, is_drifting=False)
KEY_FRAMES = (0, 8, 16)
HORIZON = 32


def sources() -> dict[str, bytes]:
    """Return the files by name, `SIZE` pixels a side."""
    sky = np.zeros((SIZE, SIZE), dtype=np.uint8)
    sky[:HORIZON] = 255
    clip_FHWC = draw_clip(CLIP)
    return {
        "beach.png": _png(draw(BEACH)),
        "city-sketch.png": _png(draw(CITY)),
        "sky.png": _png(sky),
        **{f"peaks-{frame}.png": _png(clip_FHWC[frame]) for frame in KEY_FRAMES},
        "peaks.gif": _gif(draw_clip(replace(CLIP, is_setting=False))),
    }


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def _gif(clip_FHWC: np.ndarray) -> bytes:
    file = io.BytesIO()
    first, *others = map(Image.fromarray, clip_FHWC)
    first.save(file, "GIF", save_all=True, append_images=others, duration=1000 / FPS)
    return file.getvalue()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in sources().items():
        (folder / name).write_bytes(data)
        print(f"drew {folder / name}")
