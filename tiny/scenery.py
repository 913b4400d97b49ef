"""The land of each scene, as layers of shapes in daylight; world.py lights them and gives them a style.

    Layers.blank(seed, weather) --> beach(layers), mountains(layers), ... draw their shapes, far ones first

Coordinates are pixels of the finished picture, as floats; the panorama is WIDTH wide, its middle SIZE are the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

HEIGHT: Final = 64
WIDTH: Final = 128
SCALE: Final = 2
"""Shapes are drawn this much larger and then averaged down, for smooth edges."""

Colour = tuple[int, int, int]
Point = tuple[float, float]

_SNOW: Colour = (240, 245, 252)
_FOLIAGE: Final[Mapping[str, Sequence[Colour]]] = {
    "clear": ((46, 120, 58), (34, 98, 52), (70, 142, 66)),
    "cloudy": ((52, 108, 66), (42, 90, 58), (72, 124, 74)),
    "winter": ((205, 220, 228), (176, 196, 208), (226, 236, 242)),
    "autumn": ((214, 116, 36), (186, 78, 34), (232, 158, 50)),
}
_GRASS: Final[Mapping[str, Colour]] = {
    "clear": (104, 170, 74),
    "cloudy": (98, 146, 82),
    "winter": (232, 238, 244),
    "autumn": (190, 156, 76),
}


@dataclass(slots=True, kw_only=True)
class Layers:
    """What has been drawn so far.

    Attributes:
        generator: Decides shapes and places.
        weather: One of world.WEATHERS.
        has_feature: Whether to draw the scene's own thing.
        colours: In daylight.
        regions: Number of the shape at each pixel, for outlines; 0 is sky.
        water: 255 where the sky is mirrored.
        lamps: 255 where light shines by night.
        horizon: Row above which water mirrors.
        count: Shapes so far.
    """

    generator: np.random.Generator
    weather: str
    has_feature: bool
    colours: Image.Image
    regions: Image.Image
    water: Image.Image
    lamps: Image.Image
    horizon: int = 33
    count: int = 0

    @classmethod
    def blank(cls, seed: int, weather: str, *, has_feature: bool) -> Layers:
        """Return layers with nothing but sky."""
        size = (WIDTH * SCALE, HEIGHT * SCALE)
        return cls(
            generator=np.random.default_rng((seed, 0)),
            weather=weather,
            has_feature=has_feature,
            colours=Image.new("RGB", size),
            regions=Image.new("L", size),
            water=Image.new("L", size),
            lamps=Image.new("L", size),
        )

    def array(self, name: Literal["colours", "regions", "water", "lamps"]) -> NDArray[np.uint8]:
        """Return one layer as HWC or HW."""
        return np.asarray(getattr(self, name))

    def polygon(self, points: Sequence[Point], colour: Colour, *, is_outlined: bool = True) -> None:
        """Draw a polygon over everything before it."""
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self._number(is_outlined)
        ImageDraw.Draw(self.colours).polygon(scaled, fill=colour)
        ImageDraw.Draw(self.regions).polygon(scaled, fill=self.count)
        ImageDraw.Draw(self.water).polygon(scaled, fill=0)
        ImageDraw.Draw(self.lamps).polygon(scaled, fill=0)

    def ellipse(self, centre: Point, radii: Point, colour: Colour, *, is_outlined: bool = True) -> None:
        """Draw an ellipse over everything before it."""
        turns = np.linspace(0, 2 * np.pi, 24)
        (x, y), (wide, high) = centre, radii
        points = [(x + wide * float(np.cos(turn)), y + high * float(np.sin(turn))) for turn in turns]
        self.polygon(points, colour, is_outlined=is_outlined)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Draw a rectangle over everything before it."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def lamp(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Draw a window: a rectangle that shines by night."""
        self.box(left, top, right, bottom, colour)
        edges = [left * SCALE, top * SCALE, right * SCALE - 1, bottom * SCALE - 1]
        ImageDraw.Draw(self.lamps).rectangle(edges, fill=255)

    def below(self, line: NDArray[np.float64], colour: Colour, *, is_water: bool = False) -> None:
        """Fill everything below a line that has one height for each pixel of the panorama, and one more."""
        points = [(float(x), float(y)) for x, y in enumerate(line)]
        outline = [*points, (WIDTH, HEIGHT), (0, HEIGHT)]
        self.polygon(outline, colour)
        if is_water:
            ImageDraw.Draw(self.water).polygon([(x * SCALE, y * SCALE) for x, y in outline], fill=255)

    def waves(self, height: float, amplitude: float, length: float) -> NDArray[np.float64]:
        """Return a soft line around `height`, with hills `amplitude` high and `length` pixels long."""
        x = np.arange(WIDTH + 1)
        line = np.full(len(x), float(height))
        for part, weight in ((1.0, 0.7), (0.55, 0.3)):
            stretch = length * part * self.generator.uniform(0.8, 1.25)
            line += amplitude * weight * np.sin(x / stretch * 2 * np.pi + self.generator.uniform(0, 2 * np.pi))
        return line

    def pick(self, colours: Sequence[Colour]) -> Colour:
        """Return one of the colours."""
        return colours[int(self.generator.integers(len(colours)))]

    def span(self, step: float, jitter: float) -> list[float]:
        """Return places over the whole panorama, about `step` apart."""
        start = self.generator.uniform(0, step)
        places = np.arange(start - step, WIDTH + step, step)
        return [float(place) for place in places + self.generator.uniform(-jitter, jitter, len(places))]

    def seen(self, low: float = 14, high: float = 50) -> float:
        """Return a place that the unmoved camera sees, pixels of the panorama."""
        return (WIDTH - HEIGHT) / 2 + float(self.generator.uniform(low, high))

    def _number(self, is_outlined: bool) -> None:
        if is_outlined or self.count == 0:
            self.count = self.count % 250 + 1


def beach(layers: Layers) -> None:
    """Sea with waves, sand before it; feature: palm trees."""
    is_winter = layers.weather == "winter"
    layers.horizon = round(layers.generator.uniform(31, 35))
    layers.below(np.full(WIDTH + 1, float(layers.horizon)), (30, 108, 176), is_water=True)
    for row in (4.5, 9.5):
        for x in layers.span(26, 8):
            y = layers.horizon + row
            layers.polygon(
                [(x, y), (x + 6, y - 1.2), (x + 12, y), (x + 6, y + 0.6)], (200, 228, 240), is_outlined=False
            )
    shore = layers.waves(layers.horizon + 16, 2.2, 60)
    layers.below(shore - 1.8, (244, 250, 252))
    layers.below(shore + 0.6, (228, 230, 236) if is_winter else (232, 204, 148))
    if layers.generator.random() < 0.35:
        x, y = layers.seen(8, 56), layers.horizon + 3.0
        layers.polygon([(x - 4, y), (x + 5, y), (x + 3, y + 2.5), (x - 3, y + 2.5)], (150, 60, 46))
        layers.polygon([(x, y - 10), (x + 6, y - 1), (x, y - 1)], (250, 248, 240))
    if layers.has_feature:
        for x in (layers.seen(8, 18), layers.seen(44, 56))[: int(layers.generator.integers(1, 3))]:
            _palm(layers, x)


def _palm(layers: Layers, x: float) -> None:
    lean, top = layers.generator.uniform(-5, 5), layers.generator.uniform(18, 24)
    layers.polygon([(x - 1.6, 58), (x + 1.6, 58), (x + lean + 1, top), (x + lean - 1, top)], (122, 84, 50))
    leaf = _FOLIAGE[layers.weather]
    for turn in (-2.9, -2.3, -1.57, -0.85, -0.25):
        tip = (x + lean + 11 * float(np.cos(turn)), top + 4 + 8 * float(np.sin(turn)))
        middle = (x + lean + 6 * float(np.cos(turn)), top - 2 + 5 * float(np.sin(turn)))
        under = (middle[0], middle[1] + 4.0)
        layers.polygon([(x + lean, top - 1), middle, tip, under], leaf[0] if turn < -1.5 else leaf[1])


def mountains(layers: Layers) -> None:
    """Peaks with a bright and a dark side and snow on top, foothills; feature: a lake."""
    far = layers.waves(32, 3.0, 34)
    layers.below(far, (136, 152, 186))
    for x in layers.span(30, 5):
        _peak(layers, x, layers.generator.uniform(12, 20), layers.generator.uniform(17, 23))
    layers.below(layers.waves(49, 2.0, 40), _FOLIAGE[layers.weather][1])
    layers.below(layers.waves(54, 1.5, 60), _GRASS[layers.weather])
    if layers.has_feature:
        layers.horizon = 51
        x = layers.seen(22, 42)
        turns = np.linspace(0, 2 * np.pi, 32)
        shore = [(x + 22 * float(np.cos(turn)), 56 + 4.6 * float(np.sin(turn))) for turn in turns]
        layers.polygon(shore, (60, 140, 196))
        ImageDraw.Draw(layers.water).polygon([(u * SCALE, v * SCALE) for u, v in shore], fill=200)


def _peak(layers: Layers, x: float, top: float, reach: float) -> None:
    foot = 52.0
    ridge = x + layers.generator.uniform(-2, 4)
    layers.polygon([(x, top), (x - reach, foot), (ridge, foot)], (132, 124, 132))
    layers.polygon([(x, top), (ridge, foot), (x + reach, foot)], (88, 84, 104))
    cap = 0.52 if layers.weather == "winter" else 0.3
    low = top + (foot - top) * cap
    bright = [(x, top), (x - reach * cap, low), (x - reach * cap * 0.45, low - 2.5), (x + (ridge - x) * cap, low + 2.5)]
    layers.polygon(bright, _SNOW, is_outlined=False)
    dark = [(x, top), (x + (ridge - x) * cap, low + 2.5), (x + reach * cap * 0.5, low - 2.0), (x + reach * cap, low)]
    layers.polygon(dark, (196, 208, 228))


def desert(layers: Layers) -> None:
    """Dunes, each with a bright back and a dark lee; feature: cacti."""
    sand: Mapping[str, Sequence[Colour]] = {
        "winter": ((226, 222, 220), (200, 198, 206), (238, 236, 236)),
        "autumn": ((214, 132, 74), (176, 98, 58), (226, 154, 92)),
    }
    bright, dark, near = sand.get(layers.weather, ((236, 186, 104), (200, 142, 76), (244, 204, 128)))
    layers.below(layers.waves(38, 2.5, 46), dark)
    layers.below(layers.waves(43, 4.5, 50), bright)
    for x in layers.span(44, 6):
        top = layers.generator.uniform(38, 43)
        layers.polygon([(x, top), (x - 24, 64), (x + 6, 64)], near, is_outlined=False)
        layers.polygon([(x, top), (x + 3, 52), (x + 6, 64), (x + 30, 64)], dark)
    layers.below(layers.waves(58, 2.0, 54), near)
    if layers.has_feature:
        for x in (layers.seen(10, 24), layers.seen(38, 54))[: int(layers.generator.integers(1, 3))]:
            _cactus(layers, x)


def _cactus(layers: Layers, x: float) -> None:
    green: Colour = (58, 128, 66)
    top = layers.generator.uniform(30, 36)
    layers.box(x - 2, top, x + 2, 60, green)
    for side, height in ((-1, 6.0), (1, 9.5)):
        near, far = sorted((x + side * 1.5, x + side * 7))
        layers.box(near, top + height + 3, far, top + height + 6.5, green)
        near, far = sorted((x + side * 4, x + side * 7))
        layers.box(near, top + height - 4, far, top + height + 6.5, green)


def forest(layers: Layers) -> None:
    """Two rows of trees, firs and round ones; feature: a cabin."""
    leaves = _FOLIAGE[layers.weather]
    layers.below(layers.waves(30, 2.5, 16), leaves[1])
    layers.below(layers.waves(50, 1.5, 50), _GRASS[layers.weather])
    kind = int(layers.generator.integers(2))
    for base, step, size in ((50.0, 11.0, 24.0), (58.0, 21.0, 33.0)):
        for index, x in enumerate(layers.span(step, 2.5)):
            height = size * layers.generator.uniform(0.85, 1.12)
            colour = leaves[index % 3]
            (_fir if kind == 0 or layers.weather == "winter" else _round_tree)(layers, (x, base), height, colour)
    if layers.has_feature:
        _house(layers, layers.seen(16, 48), 60, (132, 86, 52), (92, 56, 40))


def _fir(layers: Layers, foot: Point, height: float, colour: Colour) -> None:
    x, y = foot
    layers.box(x - 1.4, y - 4, x + 1.4, y + 1, (92, 62, 42))
    for low, reach in ((0.12, 0.30), (0.42, 0.23)):
        top = y - height * (low + 0.58 if low < 0.4 else 1.0)
        layers.polygon(
            [(x, top), (x - height * reach, y - height * low), (x + height * reach, y - height * low)], colour
        )


def _round_tree(layers: Layers, foot: Point, height: float, colour: Colour) -> None:
    x, y = foot
    layers.box(x - 1.6, y - height * 0.5, x + 1.6, y + 1, (100, 68, 46))
    layers.ellipse((x, y - height * 0.66), (height * 0.27, height * 0.34), colour)


def _house(layers: Layers, x: float, foot: float, wall: Colour, roof: Colour) -> None:
    layers.box(x - 7, foot - 9, x + 7, foot, wall)
    layers.polygon(
        [(x - 9, foot - 9), (x, foot - 16), (x + 9, foot - 9)], _SNOW if layers.weather == "winter" else roof
    )
    layers.lamp(x - 5, foot - 7, x - 1, foot - 3, (110, 140, 170))
    layers.box(x + 1.5, foot - 7, x + 4.5, foot, (88, 54, 40))


def city(layers: Layers) -> None:
    """A far and a near row of towers with windows; feature: a tall tower with a spire."""
    for x in layers.span(10, 2):
        top = layers.generator.uniform(24, 36)
        layers.box(x - 5.5, top, x + 5.5, 64, (146, 160, 186))
    walls: Sequence[Colour] = ((98, 104, 126), (132, 112, 108), (88, 116, 136), (150, 138, 128))
    if layers.has_feature:
        x = layers.seen(20, 44)
        layers.box(x - 4.5, 18, x + 4.5, 64, (172, 178, 190))
        layers.polygon([(x - 4.5, 18), (x, 5), (x + 4.5, 18)], (206, 92, 72))
        for y in (22.0, 28.0):
            layers.lamp(x - 2, y, x + 2, y + 3, (90, 110, 140))
    edge = layers.generator.uniform(-10, 0)
    while edge < WIDTH:
        wide = float(layers.generator.choice((12, 16)))
        top = float(layers.generator.uniform(30, 45))
        layers.box(edge, top, edge + wide, 64, layers.pick(walls))
        if layers.weather == "winter":
            layers.box(edge, top - 1, edge + wide, top + 1.5, _SNOW)
        for x in np.arange(edge + 2, edge + wide - 3, 4.0):
            for y in np.arange(top + 3.5, 56, 5.0):
                if layers.generator.random() < 0.75:
                    layers.lamp(float(x), float(y), float(x) + 2.5, float(y) + 3, (176, 200, 220))
        edge += wide + float(layers.generator.choice((0, 0, 3)))
    layers.box(0, 58.5, WIDTH, 64, _SNOW if layers.weather == "winter" else (84, 84, 92))
    for x in layers.span(26, 5):
        layers.ellipse((x, 56), (4.2, 4.2), _FOLIAGE[layers.weather][0])


def village(layers: Layers) -> None:
    """Rolling hills with houses under red roofs; feature: a church."""
    grass = _GRASS[layers.weather]
    shade: Colour = (int(grass[0] * 0.82), int(grass[1] * 0.86), int(grass[2] * 0.9))
    layers.below(layers.waves(35, 3.5, 48), shade)
    layers.below(layers.waves(43, 3.0, 56), grass)
    if layers.has_feature:
        _church(layers, layers.seen(18, 46))
    for index, x in enumerate(layers.span(19, 3)):
        if index % 3 == 2:
            _round_tree(layers, (x, 52), 17, _FOLIAGE[layers.weather][index % 2])
        else:
            wall: Colour = (240, 228, 202) if index % 2 else (222, 190, 150)
            _house(layers, x, 51 + 4 * (index % 2), wall, (188, 68, 52))
    layers.below(layers.waves(58, 1.6, 44), shade)


def _church(layers: Layers, x: float) -> None:
    layers.box(x - 4, 24, x + 4, 52, (236, 230, 218))
    layers.polygon([(x - 5, 24), (x, 9), (x + 5, 24)], (84, 100, 132))
    layers.lamp(x - 1.8, 28, x + 1.8, 34, (100, 120, 150))
