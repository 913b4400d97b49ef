"""The small world that tiny-sd is taught: landscapes, drawn with numpy and Pillow, seeded.

    Landscape (scene, time, weather, style, ...) --> draw() --> picture_HWC, 64 x 64
                                             pan, dusk, drift: where the camera looks, and when

Every landscape is a panorama twice as wide as its picture, so a camera can pan over it. Shapes are bold and few,
because an autoencoder keeps one latent for 4 x 4 pixels. Needs numpy and Pillow only.
"""

# H and W pixels, C = 3 channels (red, green, blue). Drawing is done at SCALE times the size, in floats of 0..1.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from tiny import scenery
from tiny.scenery import HEIGHT, SCALE, WIDTH, Layers

SIZE: Final = HEIGHT
"""Height and width of a picture, pixels."""

PAN_MAX: Final = (WIDTH - SIZE) // 2
"""How far the camera can look to either side of the middle, pixels."""

SCENES: Final[Mapping[str, Callable[[Layers], None]]] = {
    "beach": scenery.beach,
    "mountains": scenery.mountains,
    "desert": scenery.desert,
    "forest": scenery.forest,
    "city": scenery.city,
    "village": scenery.village,
}
TIMES: Final = ("day", "sunset", "night")
WEATHERS: Final = ("clear", "cloudy", "winter", "autumn")
STYLES: Final = ("photo", "sketch", "poster")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Landscape:
    """Everything a picture shows.

    Attributes:
        scene: One of SCENES.
        time: One of TIMES.
        weather: One of WEATHERS, seasons among them.
        style: One of STYLES.
        has_orb: Sun or moon stands in the sky.
        has_feature: The scene's own thing is there: see captions.FEATURES.
        seed: Decides every shape and place.
    """

    scene: str
    time: str
    weather: str
    style: str
    has_orb: bool
    has_feature: bool
    seed: int

    def __post_init__(self) -> None:
        for value, known in ((self.scene, SCENES), (self.time, TIMES), (self.weather, WEATHERS), (self.style, STYLES)):
            if value not in known:
                raise ValueError(f"{value!r} is not of this world; there are {', '.join(known)}")


# Sky from zenith to horizon, sun or moon, clouds, light on the land; for dusk 0, 1, 2: day, sunset, night.
_ZENITH = np.array([[60, 130, 225], [128, 62, 118], [10, 12, 42]]) / 255
_MIDDLE = np.array([[125, 185, 240], [236, 108, 82], [20, 26, 70]]) / 255
_HORIZON = np.array([[205, 230, 248], [255, 205, 110], [48, 58, 112]]) / 255
_ORB = np.array([[255, 240, 150], [255, 235, 170], [240, 240, 225]]) / 255
_CLOUD = np.array([[250, 252, 255], [250, 165, 150], [62, 66, 104]]) / 255
_LIGHT = np.array([[1.0, 1.0, 1.0], [0.88, 0.60, 0.54], [0.25, 0.30, 0.50]])
_ORB_HEIGHT = (12.0, 25.0, 12.0)
_PAPER = np.array([0.97, 0.96, 0.94])
_POSTER_MARGIN = 3


def draw(landscape: Landscape, *, pan: float = 0.0, dusk: float | None = None, drift: float = 0.0) -> NDArray[np.uint8]:
    """Draw a landscape: picture_HWC, 64 x 64.

    Args:
        landscape: What to draw.
        pan: Where the camera looks, pixels right of the middle; at most PAN_MAX either way.
        dusk: Time as a number: 0 day, 1 sunset, 2 night, anything between; None is the landscape's own time.
        drift: How far the clouds have moved to the right, pixels.

    Raises:
        ValueError: When the camera would look past the panorama's end.
    """
    if abs(pan) > PAN_MAX:
        raise ValueError(f"pan {pan} is out of -{PAN_MAX}..{PAN_MAX} pixels")
    when = float(TIMES.index(landscape.time)) if dusk is None else dusk
    layers = Layers.blank(landscape.seed, landscape.weather, has_feature=landscape.has_feature)
    SCENES[landscape.scene](layers)
    sky_HWC = _sky(landscape, when, drift)
    land_HWC = _relit(layers, sky_HWC, when, is_flat=landscape.style == "poster")
    is_land_HW1 = layers.array("regions")[:, :, None] > 0
    whole_HWC = np.where(is_land_HW1, land_HWC, sky_HWC)
    start = round((PAN_MAX + pan) * SCALE)
    view = slice(start, start + SIZE * SCALE)
    styled_HWC = _STYLE[landscape.style](whole_HWC[:, view], layers.array("regions")[:, view], when)
    small_HWC: Floats = styled_HWC.reshape(SIZE, SCALE, SIZE, SCALE, 3).mean(axis=(1, 3))
    return np.asarray((np.clip(small_HWC, 0, 1) * 255).round(), dtype=np.uint8)


def random_landscape(generator: np.random.Generator, **fixed: str) -> Landscape:
    """Return a landscape at random, but for the parts that are given: scene, time, weather, style."""

    def pick(name: str, choices: Sequence[str]) -> str:
        return fixed.get(name) or choices[int(generator.integers(len(choices)))]

    weather = pick("weather", WEATHERS)
    return Landscape(
        scene=pick("scene", tuple(SCENES)),
        time=pick("time", TIMES),
        weather=weather,
        style=pick("style", STYLES),
        has_orb=weather != "cloudy" and bool(generator.random() < 0.65),
        has_feature=bool(generator.random() < 0.5),
        seed=int(generator.integers(2**31)),
    )


def _at(palette: Floats, dusk: float) -> Floats:
    """Return a palette's colour between two of its times."""
    low = min(int(dusk), len(palette) - 2)
    part = dusk - low
    return np.asarray(palette[low] * (1 - part) + palette[low + 1] * part)


def _sky(landscape: Landscape, dusk: float, drift: float) -> Floats:
    """Return the sky over the whole panorama."""
    generator = np.random.default_rng((landscape.seed, 1))
    height, width = HEIGHT * SCALE, WIDTH * SCALE
    rows, columns = np.mgrid[0:height, 0:width] / SCALE
    orb_x = PAN_MAX + generator.uniform(12, SIZE - 12)
    orb_y = float(np.interp(dusk, (0, 1, 2), _ORB_HEIGHT)) + generator.uniform(-2, 2)
    distance = np.hypot(rows - orb_y, columns - orb_x)
    is_poster = landscape.style == "poster"
    depth = np.clip(rows / 34, 0, 1)
    if is_poster:  # flat bands: rings around sun or moon, else stripes
        depth = np.floor(np.clip(1 - distance / 60 if landscape.has_orb else depth, 0, 0.99) * 4) / 3
    sky = _gradient(depth, [_at(_ZENITH, dusk), _at(_MIDDLE, dusk), _at(_HORIZON, dusk)])
    if landscape.weather == "cloudy":
        grey = sky.mean(axis=2, keepdims=True) * np.array([0.94, 1.0, 1.08])
        sky = sky * 0.55 + grey * 0.40
    elif landscape.weather == "winter":
        sky = sky * 0.88 + 0.10 * (1 - dusk / 2)
    if landscape.has_orb:
        radius = 5.0 + 2.0 * max(0.0, 1 - abs(dusk - 1))
        disc = np.clip((radius - distance) * SCALE, 0, 1)[:, :, None]
        if not is_poster:
            glow = np.exp(-((distance / 14) ** 2))[:, :, None] * 0.45
            sky = sky * (1 - glow) + _at(_ORB, dusk) * glow
        sky = sky * (1 - disc) + _at(_ORB, dusk) * disc
    elif dusk > 1.5 and landscape.weather != "cloudy":
        _stars(sky, generator)
    return _with_clouds(sky, landscape, dusk, drift)


def _gradient(depth_HW: Floats, colours: Sequence[Floats]) -> Floats:
    stops = np.linspace(0, 1, len(colours))
    channels = [np.interp(depth_HW, stops, [colour[channel] for colour in colours]) for channel in range(3)]
    return np.stack(channels, axis=-1)


def _stars(sky_HWC: Floats, generator: np.random.Generator) -> None:
    for x, y in generator.uniform((2, 2), (WIDTH - 2, 26), (22, 2)):
        top, left = int(y * SCALE), int(x * SCALE)
        sky_HWC[top : top + 3, left : left + 3] = (0.92, 0.92, 0.80)


def _with_clouds(sky_HWC: Floats, landscape: Landscape, dusk: float, drift: float) -> Floats:
    """Lay clouds over the sky: a blanket when it is cloudy, a few bold ones else."""
    generator = np.random.default_rng((landscape.seed, 2))
    is_cloudy = landscape.weather == "cloudy"
    mask = Image.new("L", (WIDTH * SCALE, HEIGHT * SCALE))
    pencil = ImageDraw.Draw(mask)
    for _ in range(9 if is_cloudy else int(generator.integers(0, 4))):
        x = (generator.uniform(0, WIDTH) + drift) % (WIDTH + 30) - 15
        y, size = generator.uniform(3, 20 if is_cloudy else 14), generator.uniform(6, 11 if is_cloudy else 8)
        for step in (-0.9, 0.0, 0.9):
            reach = size * (0.75 if step else 1.0)
            box = (x + step * size - reach, y - reach * 0.45, x + step * size + reach, y + reach * 0.45)
            pencil.ellipse([value * SCALE for value in box], fill=255)
    if landscape.style != "poster":
        mask = mask.filter(ImageFilter.GaussianBlur(1.5))
    cover = np.asarray(mask, dtype=np.float64)[:, :, None] / 255 * (0.62 if is_cloudy else 0.85)
    return sky_HWC * (1 - cover) + _at(_CLOUD, dusk) * (0.9 if is_cloudy else 1.0) * cover


def _relit(layers: Layers, sky_HWC: Floats, dusk: float, *, is_flat: bool) -> Floats:
    """Return the land in the light of the hour: water mirrors the sky, lamps shine when it is dark."""
    land = layers.array("colours") / 255
    if not is_flat:
        land = land * np.linspace(1.08, 0.86, land.shape[0])[:, None, None]
    land = land * _at(_LIGHT, dusk)
    water = layers.array("water")[:, :, None] / 255
    line = layers.horizon * SCALE
    mirrored = sky_HWC[np.clip(2 * line - np.arange(len(sky_HWC)), 0, line)]
    if is_flat:
        mirrored = np.broadcast_to(_at(_MIDDLE, dusk), land.shape)
    land = land * (1 - 0.6 * water) + mirrored * 0.6 * water
    lamps = layers.array("lamps")[:, :, None] / 255 * float(np.clip(dusk - 0.4, 0, 1))
    return np.asarray(land * (1 - lamps) + np.array([1.0, 0.86, 0.42]) * lamps)


def _as_photo(picture_HWC: Floats, regions_HW: NDArray[np.uint8], dusk: float) -> Floats:
    del regions_HW, dusk
    return picture_HWC


def _as_sketch(picture_HWC: Floats, regions_HW: NDArray[np.uint8], dusk: float) -> Floats:
    """Return pencil on paper: outlines, grey for dark; the sky white by day, ruled at sunset, hatched by night."""
    grey = picture_HWC @ np.array([0.3, 0.59, 0.11])
    rows, columns = np.indices(grey.shape)
    sky = regions_HW == 0
    by_day, by_sunset = np.clip((1 - dusk, 1 - abs(1 - dusk)), 0, 1)
    hatch = 0.13 * ((rows + columns) % (4 * SCALE) < 2 * SCALE) * np.where(sky, 1 - by_day - by_sunset, grey < 0.42)
    ruled = 0.20 * (rows % (4 * SCALE) < 1.5 * SCALE) * (sky & (grey < 0.8)) * by_sunset
    tone = 0.42 + 0.58 * np.clip(grey * 1.25 + 0.30 * by_day * sky, 0, 1) - hatch - ruled
    regions = regions_HW.astype(np.int16)
    edge = np.zeros(grey.shape, dtype=bool)
    for axis in (0, 1):
        step = np.diff(regions, axis=axis) != 0
        for shift in (0, 1):
            pad = [(0, 0), (0, 0)]
            pad[axis] = (shift, 1 - shift)
            edge |= np.pad(step, pad)
    return np.asarray(np.where(edge, 0.16, tone)[:, :, None] * _PAPER)


def _as_poster(picture_HWC: Floats, regions_HW: NDArray[np.uint8], dusk: float) -> Floats:
    """Return flat, loud colours within a paper margin."""
    del regions_HW, dusk
    grey = picture_HWC.mean(axis=2, keepdims=True)
    loud = np.clip(grey + (picture_HWC - grey) * 1.5, 0, 1)
    flat = np.round(loud * 6) / 6
    margin = _POSTER_MARGIN * SCALE
    framed = np.broadcast_to(np.array([0.98, 0.95, 0.86]), flat.shape).copy()
    framed[margin:-margin, margin:-margin] = flat[margin:-margin, margin:-margin]
    return framed


_STYLE: Final[Mapping[str, Callable[[Floats, NDArray[np.uint8], float], Floats]]] = {
    "photo": _as_photo,
    "sketch": _as_sketch,
    "poster": _as_poster,
}
