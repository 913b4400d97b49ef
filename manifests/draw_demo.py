"""Draw the demo's sources: a beach, its sky's mask, a city in pencil, three moments of a clip. Always the same."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from sdbatch.generate.tiny.moving import Scenario, draw_clip
from sdbatch.generate.tiny.world import SIZE, Landscape, draw

BEACH = Landscape(scene="beach", time="day", weather="clear", style="photo", has_orb=True, has_feature=True, seed=5)
CITY = Landscape(scene="city", time="day", weather="clear", style="sketch", has_orb=True, has_feature=True, seed=3)
PEAKS = Landscape(
    scene="mountains", time="day", weather="winter", style="photo", has_orb=True, has_feature=False, seed=8
)
CLIP = Scenario(landscape=PEAKS, pan="right", is_setting=True, is_drifting=False)
KEY_FRAMES = (0, 8, 16)
HORIZON = 32


def sources() -> dict[str, Image.Image]:
    """Return the pictures by file name, `SIZE` pixels a side."""
    sky = np.zeros((SIZE, SIZE), dtype=np.uint8)
    sky[:HORIZON] = 255
    clip_FHWC = draw_clip(CLIP)
    return {
        "beach.png": Image.fromarray(draw(BEACH)),
        "city-sketch.png": Image.fromarray(draw(CITY)),
        "sky.png": Image.fromarray(sky),
        **{f"peaks-{frame}.png": Image.fromarray(clip_FHWC[frame]) for frame in KEY_FRAMES},
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in sources().items():
        picture.save(folder / name)
        print(f"drew {folder / name}")
