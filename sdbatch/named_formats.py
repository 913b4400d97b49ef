"""The named formats that people ask for: a size in pixels, a file type, and how many bytes the file may have.

    `instagram-story`, or {name: mail, width: 600, height: 400, type: jpg} --> formats_of() --> NamedFormat

Sizes and bounds of platforms change. `LOOKED_UP` says when these were read, in guides to each platform's own pages; a
bound that was not found is none. A user's own format, or a shipped one with other values, is a mapping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from sdbatch.errors import JobError
from sdbatch.formats import CLIPS, PICTURES
from sdbatch.hints import did_you_mean

LOOKED_UP: Final = "2026-11-27"
"""The day on which sizes and bounds of the shipped formats were looked up."""
SIDE_PIXELS_MAX: Final = 16_383
"""Longest side of a WebP, and the longest of any format here."""
NAME_CHARS_MAX: Final = 64
BYTES_MIN: Final = 1_000
"""Smallest bound on a file's bytes: no picture or clip of use has fewer."""
TYPES: Final = (*PICTURES, *CLIPS)
_DENSE: Final = tuple(suffix for suffix, one in PICTURES.items() if one.has_density)
FITS: Final[Mapping[str, str]] = {
    "cover": "fills the size and crops what is over",
    "contain": "shows all of the master on its mean colour",
    "letterbox": "shows all of the master between bars",
}
PRINT_DPI: Final = 300
DPI_MAX: Final = 10_000
"""Most pixels an inch that a format asks for; the finest printers have a quarter of it."""
KINDS: Final = ("social", "display", "video", "print", "own")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFormat:
    """A size and a file type that somebody asks for by name.

    Attributes:
        name: Its name, at most `NAME_CHARS_MAX` letters, digits, `.`, `_` and `-`.
        width: Pixels.
        height: Pixels.
        type: Suffix of the file, one of `TYPES`; it says whether this is a picture or a clip.
        bytes_max: Most bytes of the file; None where there is no bound.
        fit: How a master of another shape meets the size; one of `FITS`.
        dpi: Pixels an inch of print, which the file says, so that programs open it in its size on paper; None says
            nothing.
        kind: One of `KINDS`: where the format is from.
    """

    name: str
    width: int
    height: int
    type: str
    bytes_max: int | None = None
    fit: str = "cover"
    dpi: int | None = None
    kind: str = "own"

    def __post_init__(self) -> None:
        for fault in _faults(self):
            raise JobError(f"format {self.name!r}: {fault}")

    @property
    def is_clip(self) -> bool:
        """Whether it is made from clips, and not from pictures."""
        return self.type in CLIPS

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width / self.height


def _faults(one: NamedFormat) -> list[str]:
    """Return what is wrong with a format, each with the value and the bound."""
    faults = []
    name = one.name
    if not isinstance(name, str) or not _is_name(name):
        faults.append(
            f"a name has 1 to {NAME_CHARS_MAX} letters, digits, `.`, `_` or `-`, and begins with one of the first two"
        )
    for side in ("width", "height"):
        pixels = getattr(one, side)
        if not _is_whole(pixels) or not 1 <= pixels <= SIDE_PIXELS_MAX:
            faults.append(f"{side} {pixels!r} is not a whole number from 1 to {SIDE_PIXELS_MAX}")
    if one.type not in TYPES:
        faults.append(f"type {one.type!r} is not one of {', '.join(TYPES)}")
    elif not faults and one.is_clip and (one.width % 2 or one.height % 2):
        faults.append(f"{one.width} x {one.height}: a clip has an even width and an even height")
    if one.bytes_max is not None and (not _is_whole(one.bytes_max) or one.bytes_max < BYTES_MIN):
        faults.append(f"bytes_max {one.bytes_max!r} is not a whole number from {BYTES_MIN}")
    if one.fit not in FITS:
        faults.append(f"fit {one.fit!r} is not one of {', '.join(FITS)}")
    if one.dpi is not None and (not _is_whole(one.dpi) or not 1 <= one.dpi <= DPI_MAX):
        faults.append(f"dpi {one.dpi!r} is not a whole number from 1 to {DPI_MAX}")
    elif one.dpi is not None and one.type in TYPES and one.type not in _DENSE:
        faults.append(f"dpi {one.dpi}: a file of type {one.type} does not say it; {' and '.join(_DENSE)} do")
    return faults


def _is_name(name: str) -> bool:
    letters = name.replace("-", "").replace("_", "").replace(".", "")
    return len(name) <= NAME_CHARS_MAX and name[:1].isalnum() and name.isascii() and letters.isalnum()


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shipped() -> dict[str, NamedFormat]:
    rows: list[tuple[str, str, int, int, str, int | None]] = [
        ("social", "instagram-post", 1080, 1350, "jpg", 30_000_000),
        ("social", "instagram-square", 1080, 1080, "jpg", 30_000_000),
        ("social", "instagram-landscape", 1080, 566, "jpg", 30_000_000),
        ("social", "instagram-story", 1080, 1920, "jpg", 30_000_000),
        ("social", "facebook-post", 1200, 630, "jpg", 30_000_000),
        ("social", "facebook-square", 1080, 1080, "jpg", 30_000_000),
        ("social", "facebook-story", 1080, 1920, "jpg", 30_000_000),
        ("social", "x-post", 1600, 900, "jpg", 5_000_000),
        ("social", "x-square", 1080, 1080, "jpg", 5_000_000),
        ("social", "linkedin-post", 1200, 627, "jpg", None),
        ("social", "pinterest-pin", 1000, 1500, "jpg", None),
        ("social", "tiktok-cover", 1080, 1920, "jpg", None),
        ("social", "youtube-thumbnail", 1280, 720, "jpg", 2_000_000),
        ("display", "google-landscape", 1200, 628, "jpg", 5_000_000),
        ("display", "google-square", 1200, 1200, "jpg", 5_000_000),
        ("display", "google-portrait", 960, 1200, "jpg", 5_000_000),
        *[("display", f"display-{w}x{h}", w, h, "jpg", 150_000) for w, h in _DISPLAY_SIZES],
        ("video", "instagram-reel", 1080, 1920, "mp4", None),
        ("video", "tiktok-video", 1080, 1920, "mp4", None),
        ("video", "youtube-short", 1080, 1920, "mp4", None),
        ("video", "youtube-video", 1920, 1080, "mp4", None),
        ("video", "square-video", 1080, 1080, "mp4", None),
        *[("print", f"{name}-300dpi", w, h, "png", None) for name, w, h in _SHEETS],
    ]
    return {
        name: NamedFormat(
            kind=kind,
            name=name,
            width=width,
            height=height,
            type=suffix,
            bytes_max=bytes_max,
            dpi=PRINT_DPI if kind == "print" else None,
        )
        for kind, name, width, height, suffix, bytes_max in rows
    }


# A bound that is said in KB or MB is taken to base 1000, the smaller of its two meanings.
_DISPLAY_SIZES = (
    (300, 250), (336, 280), (728, 90), (970, 90), (970, 250), (300, 600), (160, 600), (120, 600), (468, 60),
    (250, 250), (200, 200), (320, 50), (320, 100),
)  # fmt: skip
_SHEETS = (  # at `PRINT_DPI`, without bleed
    ("a3", 3508, 4961),
    ("a4", 2480, 3508),
    ("a5", 1748, 2480),
    ("a6", 1240, 1748),
    ("us-letter", 2550, 3300),
    ("postcard-4x6in", 1200, 1800),
)
SHIPPED: Final[Mapping[str, NamedFormat]] = _shipped()
"""The formats that come with the package, by name."""

_OWN_KEYS: Final = ("name", "like", *(one.name for one in fields(NamedFormat) if one.name not in {"name", "kind"}))
BESIDE_FORMATS: Final = ("bars", "crop_max", "enlarge_max", "focus", "quality")
"""Keys that hold for all formats of a delivery, or of a brief."""
_FORMATS_MAX: Final = 1_000


def format_of(entry: str | Mapping[str, Any], place: str = "formats") -> NamedFormat:
    """Return the format that an entry of a list of formats stands for.

    Args:
        entry: Name of a shipped format, or a mapping with `name`, `width`, `height` and `type`, and with `bytes_max`,
            `fit` and `dpi` where they are wanted. A mapping that has the name of a shipped format, or names one under
            `like`, takes from it what it leaves out.
        place: Where the entry stands, for messages.

    Raises:
        JobError: Naming what is wrong, and the nearest name that there is.
    """
    if isinstance(entry, str):
        return _shipped_format(entry, place)
    if not isinstance(entry, Mapping):
        raise JobError(f"{place}: {str(entry)[:60]!r} is neither the name of a format nor a mapping")
    if isinstance(entry.get("name"), str):
        place = f"{place}: {entry['name'][:NAME_CHARS_MAX]!r}"
    for key in entry:
        if key in BESIDE_FORMATS:
            raise JobError(f"{place}: {key} is not of one format; write it beside `formats`")
        if key not in _OWN_KEYS:
            raise JobError(f"{place}: unknown key {str(key)[:60]!r}; {_near(str(key), _OWN_KEYS)}")
    values = dict(entry)
    name, like = values.get("name"), values.pop("like", None)
    base = SHIPPED.get(name) if isinstance(name, str) else None
    if like is not None:
        base = _shipped_format(like, f"{place}: like")
    if base is not None and values.get("type", base.type) not in _DENSE:
        base = replace(base, dpi=None)
    missing = [
        key for key in ("name", "width", "height", "type") if key not in values and (base is None or key == "name")
    ]
    if missing:
        raise JobError(f"{place}: a format of your own needs {', '.join(missing)}; `like` takes a shipped one's")
    try:
        return NamedFormat(**values) if base is None else replace(base, **values, kind="own")
    except JobError as error:
        raise JobError(f"{place}: {error}") from error


def formats_of(entries: Sequence[str | Mapping[str, Any]], place: str = "formats") -> tuple[NamedFormat, ...]:
    """Return the formats of a list; see `format_of`.

    Raises:
        JobError: Also when it is empty, or when a name appears twice, capitals and small letters apart.
    """
    if isinstance(entries, str | Mapping) or not isinstance(entries, Sequence) or not entries:
        raise JobError(f"{place}: a list of formats is needed, such as [instagram-story, display-300x250]")
    if len(entries) > _FORMATS_MAX:
        raise JobError(f"{place}: {len(entries)} formats; {_FORMATS_MAX} are taken")
    found = tuple(format_of(entry, place) for entry in entries)
    names = [one.name.casefold() for one in found]
    for one in found:
        if names.count(one.name.casefold()) > 1:
            raise JobError(f"{place}: the name {one.name} appears more than once; give each format one of its own")
    return found


def _shipped_format(name: Any, place: str) -> NamedFormat:
    if isinstance(name, str) and name in SHIPPED:
        return SHIPPED[name]
    text = str(name)[:NAME_CHARS_MAX]
    raise JobError(f"{place}: {text!r} is no format; {_near(text, tuple(SHIPPED))}")


def _near(name: str, known: Sequence[str]) -> str:
    return did_you_mean(name.strip().lower(), known) or f"known are {', '.join(known)}"
