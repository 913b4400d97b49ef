"""Draw the source pictures that `sdbatch init` writes; they are kept in the package. Always the same."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tiny.world import Landscape, draw

SCENES = {"beach": 5, "mountains": 8, "village": 3}
"""Scenes of the small world and the seed of each."""


def pictures() -> dict[str, np.ndarray]:
    """Return the pictures by file name."""
    return {
        f"{scene}.png": draw(
            Landscape(
                scene=scene, time="day", weather="clear", style="photo", has_orb=True, has_feature=True, seed=seed
            )
        )
        for scene, seed in SCENES.items()
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures().items():
        Image.fromarray(picture).save(folder / name, "PNG", optimize=True)
        print(f"drew {folder / name}")
