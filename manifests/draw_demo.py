"""Draw the demo's sources: a beach by day, a city in pencil, and a mask of the beach's sky. Always the same."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from sdbatch.generate.tiny.world import SIZE, Landscape, draw

BEACH = Landscape(scene="beach", time="day", weather="clear", style="photo", has_orb=True, has_feature=True, seed=5)
CITY = Landscape(scene="city", time="day", weather="clear", style="sketch", has_orb=True, has_feature=True, seed=3)
HORIZON = 32


def sources() -> dict[str, Image.Image]:
    """Return the pictures by file name, `SIZE` pixels a side."""
    sky = np.zeros((SIZE, SIZE), dtype=np.uint8)
    sky[:HORIZON] = 255
    return {
        "beach.png": Image.fromarray(draw(BEACH)),
        "city-sketch.png": Image.fromarray(draw(CITY)),
        "sky.png": Image.fromarray(sky),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in sources().items():
        picture.save(folder / name)
        print(f"drew {folder / name}")
