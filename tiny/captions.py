"""What people say of a landscape: captions with synonyms and free word order.

    Landscape --> caption(generator) --> "city skyline by night, pencil sketch"

What a caption leaves out is the plain case: a photo, by day, in clear weather. Some combinations of scene, time and
style (HELD_OUT) and some word orders (ORDERS_HELD_OUT) are kept from training, to measure what was understood and what
was learned by heart. Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from tiny.world import Landscape

HELD_OUT: Final = frozenset(
    {
        ("beach", "sunset", "poster"),
        ("mountains", "night", "sketch"),
        ("desert", "sunset", "sketch"),
        ("forest", "night", "poster"),
        ("city", "day", "poster"),
        ("village", "sunset", "sketch"),
    }
)
"""Scene, time and style that no training picture shows together."""

_SCENES: Final[Mapping[str, Sequence[str]]] = {
    "beach": ("beach", "seaside", "sandy beach", "sea shore", "coast", "ocean beach", "beach by the sea"),
    "mountains": ("mountains", "mountain peaks", "mountain range", "mountain landscape", "alps", "high mountains"),
    "desert": ("desert", "desert dunes", "sand dunes", "dunes", "sandy desert", "desert landscape"),
    "forest": ("forest", "woods", "trees of a forest", "woodland", "deep forest", "forest of tall trees"),
    "city": (
        "city",
        "city skyline",
        "skyline",
        "skyscrapers",
        "town with towers",
        "big city",
        "downtown",
        "city street",
    ),
    "village": (
        "village",
        "small village",
        "houses on the hills",
        "countryside with houses",
        "little village",
        "hamlet",
    ),
}
_TIMES: Final[Mapping[str, Sequence[str]]] = {
    "day": ("by day", "in daylight", "at noon", "during the day", "in the morning", "on a bright day", "daytime"),
    "sunset": (
        "at sunset",
        "at dusk",
        "in the evening",
        "during sunset",
        "in the evening light",
        "sunset",
        "at golden hour",
    ),
    "night": ("at night", "by night", "in the dark", "at midnight", "during the night", "night", "in the night"),
}
_WEATHERS: Final[Mapping[str, Sequence[str]]] = {
    "clear": ("under a clear sky", "in clear weather", "in summer", "clear sky"),
    "cloudy": ("under clouds", "cloudy", "with a cloudy sky", "overcast", "in cloudy weather", "grey sky"),
    "winter": ("in winter", "covered in snow", "with snow", "snowy", "in the snow", "winter"),
    "autumn": ("in autumn", "in fall", "with autumn colours", "autumn", "with fallen leaves", "autumn colors"),
}
_STYLES: Final[Mapping[str, Sequence[str]]] = {
    "photo": ("photo", "photograph", "a photo", "realistic photo", "color photo", "a photograph"),
    "sketch": ("pencil sketch", "sketch", "a pencil drawing", "black and white sketch", "drawn with pencil", "drawing"),
    "poster": ("abstract poster", "poster", "a flat poster", "abstract", "poster art", "abstract poster art"),
}
_ORBS: Final[Mapping[str, Sequence[str]]] = {
    "day": ("sun in the sky", "with the sun", "under a hot sun", "sunny"),
    "sunset": ("low sun", "with the setting sun", "the sun going down"),
    "night": ("full moon", "with the moon", "under the moon", "moonlight", "moon in the sky"),
}
FEATURES: Final[Mapping[str, Sequence[str]]] = {
    "beach": ("with palm trees", "palm trees", "with a palm", "palms"),
    "mountains": ("with a lake", "a lake", "lake in front"),
    "desert": ("with a cactus", "cacti", "with cacti", "cactus"),
    "forest": ("with a cabin", "a wooden cabin", "a hut", "with a hut"),
    "city": ("with a tall tower", "a tall tower", "tower with a spire"),
    "village": ("with a church", "a church", "church tower"),
}
"""Each scene's own thing, in words."""

_ADJECTIVES: Final = (
    "serene", "quiet", "beautiful", "lonely", "wide", "calm", "peaceful", "lovely", "pretty", "empty", "old", "distant",
)  # fmt: skip
_WEATHER_ADJECTIVES: Final[Mapping[str, Sequence[str]]] = {
    "clear": ("green", "sunny summer", "summer"),
    "cloudy": ("cloudy", "grey", "gloomy"),
    "winter": ("snowy", "frozen", "white", "wintry"),
    "autumn": ("autumn", "golden", "orange"),
}
_ARTICLES: Final = ("a", "the", "", "", "view of a", "view of the", "the same")
_FILLERS: Final = (
    "wide banner", "high resolution", "no people", "wallpaper", "very detailed", "beautiful", "for a travel magazine",
    "four takes", "banner", "4k", "cinematic", "trending", "in the distance",
)  # fmt: skip

ORDERS: Final = ("abcd", "acbd", "bacd", "cabd", "cbad", "dabc", "dacb", "dcab", "adbc", "abdc", "acdb", "bdac")
"""Orders of the four parts used in training: a scene, b time, c weather and things, d style."""

ORDERS_HELD_OUT: Final = ("bcad", "cdab", "dbac", "badc", "adcb")
"""Orders kept from training."""


def is_held_out(landscape: Landscape) -> bool:
    """Say whether the landscape's scene, time and style were kept from training."""
    return (landscape.scene, landscape.time, landscape.style) in HELD_OUT


def caption(
    landscape: Landscape, generator: np.random.Generator, *, orders: Sequence[str] = ORDERS, is_full: bool = False
) -> str:
    """Return one way to ask for the landscape, decided by the generator.

    Args:
        landscape: What to ask for.
        generator: Of words, order and what is left out.
        orders: Of the four parts, one of which is taken.
        is_full: Leave none of the four parts out; only then is a held-out order always told from the trained ones.
    """

    def pick(choices: Sequence[str]) -> str:
        return choices[int(generator.integers(len(choices)))]

    def chance(part: float) -> bool:
        return bool(generator.random() < part)

    is_adjective_weather = not is_full and chance(0.35 if landscape.weather != "clear" else 0.1)
    scene = _subject(landscape, pick, is_told=is_adjective_weather, is_plain=not chance(0.4))
    parts = {"a": [scene], "b": [], "c": [], "d": []}
    if landscape.time != "day" or is_full or chance(0.6):
        parts["b"].append(pick(_TIMES[landscape.time]))
    if not is_adjective_weather and (landscape.weather != "clear" or is_full or chance(0.15)):
        parts["c"].append(pick(_WEATHERS[landscape.weather]))
    if landscape.has_orb and chance(0.4):
        parts["c"].append(pick(_ORBS[landscape.time]))
    if landscape.has_feature and chance(0.6):
        parts["c"].append(pick(FEATURES[landscape.scene]))
    if landscape.style != "photo" or is_full or chance(0.35):
        parts["d"].append(pick(_STYLES[landscape.style]))
    order = pick(orders)
    spoken = [phrase for part in order for phrase in parts[part]]
    if parts["d"] and order[0] == "d" and chance(0.5):  # "a pencil sketch of ..."
        spoken[:2] = [f"{spoken[0]} of {spoken[1]}"]
    if chance(0.15):
        spoken.insert(int(generator.integers(len(spoken) + 1)), pick(_FILLERS))
    if chance(0.15):
        spoken.insert(int(generator.integers(len(spoken) + 1)), _nonsense(generator))
    text = spoken[0]
    for phrase in spoken[1:]:
        text += (", " if chance(0.5) else " ") + phrase
    return text


def _subject(landscape: Landscape, pick: Callable[[Sequence[str]], str], *, is_told: bool, is_plain: bool) -> str:
    article, noun = pick(_ARTICLES), pick(_SCENES[landscape.scene])
    words = [article] if is_plain else [article, pick(_ADJECTIVES)]
    words += [pick(_WEATHER_ADJECTIVES[landscape.weather]), noun] if is_told else [noun]
    return " ".join(word for word in words if word)


def _nonsense(generator: np.random.Generator) -> str:
    """Return one to three words that mean nothing, so that a word never seen is nothing special."""
    letters = "bcdfghklmnprstvwz", "aeiou", "bdgklmnrst"
    words = []
    for _ in range(int(generator.integers(1, 4))):
        syllables = int(generator.integers(1, 4))
        words.append("".join(part[int(generator.integers(len(part)))] for _ in range(syllables) for part in letters))
    return " ".join(words)


def words() -> list[str]:
    """Return every word the captions know, for the tokenizer's vocabulary."""
    tables = (_SCENES, _TIMES, _WEATHERS, _STYLES, _ORBS, FEATURES, _WEATHER_ADJECTIVES)
    phrases = [phrase for table in tables for choices in table.values() for phrase in choices]
    phrases += [*_ADJECTIVES, *_ARTICLES, *_FILLERS, "of"]
    return sorted({word for phrase in phrases for word in phrase.split()})
