"""Draw the demo's source picture: a beach by day, from a few gradients and shapes. Seeded, so always the same file."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE = 192
SEED = 20261121


def beach() -> Image.Image:
    """Return the picture, `SIZE` pixels a side: sky, sun, sea with waves, sand."""
    rows = np.linspace(0.0, 1.0, SIZE)[:, None, None]
    sky = np.array([90, 160, 230]) * (1 - rows) + np.array([215, 235, 250]) * rows
    picture = np.repeat(sky, SIZE, axis=1)
    horizon, shore = int(SIZE * 0.5), int(SIZE * 0.74)
    depth = np.linspace(0.0, 1.0, shore - horizon)[:, None, None]
    picture[horizon:shore] = np.array([20, 90, 150]) * (1 - depth) + np.array([70, 180, 190]) * depth
    picture[shore:] = np.array([226, 200, 150])
    noise = np.random.default_rng(SEED).normal(0, 4, (SIZE - shore, SIZE, 1))
    picture[shore:] += noise
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((130, 18, 162, 50), fill=(255, 240, 170))
    for line, y in enumerate(range(horizon + 6, shore, 7)):
        for x in range((line * 13) % 24 - 24, SIZE, 24):
            draw.arc((x, y, x + 14, y + 5), 190, 350, fill=(225, 245, 250))
    draw.polygon([(28, 140), (60, 80), (64, 82), (36, 142)], fill=(110, 75, 45))
    for tip in ((30, 62), (48, 52), (80, 56), (96, 74), (84, 96)):
        draw.polygon([(62, 82), ((62 + tip[0]) // 2, (70 + tip[1]) // 2 - 10), tip], fill=(50, 130, 60))
    return image


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    beach().save(target)
    print(f"drew {target}")
