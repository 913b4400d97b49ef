"""Which master feeds which file.

    effective rows --> masters() --> Master x N        masters + formats --> matched() --> Match x files

Rows that are equal in all their x_ columns but `x_shape` show the same thing in several shapes: of them the one nearest
to a format's shape feeds it. A row without `x_shape` stands for itself and feeds every format.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sdbatch.deliver.placing import Focus, Placement, placed
from sdbatch.errors import JobError
from sdbatch.named_formats import NamedFormat

SHAPE: Final = "x_shape"
FOCUS_COLUMNS: Final = ("x_focus_x", "x_focus_y")
SHOWN: Final = 5
"""Ids that a message names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Master:
    """One output of a campaign, made or not.

    Attributes:
        id: Id of the request.
        n: Output number; None for a request that failed as a whole.
        asset: Path in the campaign; "" when the output was not made.
        sha256: Of the file.
        width: Pixels.
        height: Pixels.
        num_frames: Frames of a clip; None for a picture.
        fps: Frames a second of a clip.
        is_clip: Whether it is a clip.
        focus: What a crop keeps.
        columns: The row, for names.
        left_out: Why the delivery does not take it although it is made; "" when it does. It has no asset then, and no
            other shape stands in for it.
    """

    id: str
    n: int | None
    asset: str
    sha256: str
    width: int
    height: int
    num_frames: int | None
    fps: float | None
    is_clip: bool
    focus: Focus
    columns: Mapping[str, Any]
    left_out: str = ""

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width / self.height

    @property
    def own_columns(self) -> dict[str, Any]:
        """The user's own columns."""
        return {name: value for name, value in self.columns.items() if name.startswith("x_")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One file that is to be.

    Attributes:
        master: What it is made from.
        format: What it is to be.
        placement: How the master meets the size.
    """

    master: Master
    format: NamedFormat
    placement: Placement

    @property
    def maker(self) -> str:
        """The file's origin, for messages."""
        return f"{self.master.id} (output {self.master.n}, {self.format.name})"


def master_of(row: Mapping[str, Any], focus: Focus, left_out: str = "") -> Master | None:
    """Return the output that an effective row tells of; None for one that never had a size.

    Args:
        row: The row.
        focus: Of rows that have none of their own.
        left_out: Why the delivery does not take it; "" when it does.

    Raises:
        JobError: When its focus is no share.
    """
    if not row.get("width") or not row.get("height"):
        return None
    is_made = row["status"] == "ok" and row.get("asset") is not None and not left_out
    return Master(
        id=row["id"],
        n=row["n"],
        asset=row["asset"] if is_made else "",
        sha256=(row.get("sha256") or "") if is_made else "",
        width=row["width"],
        height=row["height"],
        num_frames=row.get("num_frames"),
        fps=row.get("fps"),
        is_clip=str(row.get("media_type") or "").startswith("video/") or str(row.get("task")).endswith("to-video"),
        focus=_focus(row, focus),
        columns=row,
        left_out=left_out,
    )


def _focus(row: Mapping[str, Any], default: Focus) -> Focus:
    shares = []
    for name, other in zip(FOCUS_COLUMNS, (default.x, default.y), strict=True):
        value = row.get(name)
        try:
            share = other if value is None or value == "" else float(value)
        except (TypeError, ValueError):
            share = math.nan
        if not 0 <= share <= 1:
            raise JobError(f"{row['id']}: {name} {value!r} is not a share from 0 to 1 of the picture's side")
        shares.append(share)
    return Focus(x=shares[0], y=shares[1])


def matched(masters: Sequence[Master], formats: Sequence[NamedFormat]) -> tuple[list[Match], list[str]]:
    """Return the files that formats are to be made into, and a sentence for each thing that is missing.

    Raises:
        JobError: When rows that show the same thing have the same shape, so that either could feed a format.
    """
    matches: list[Match] = []
    lacking: dict[tuple[str, str], list[str]] = {}
    fed: set[str] = set()
    for group in _groups(masters):
        for one in formats:
            fitting = [master for master in group if master.is_clip == one.is_clip]
            if not fitting:
                continue
            nearest = min(
                fitting, key=lambda master: (_distance(master, one), -master.width * master.height, master.id)
            )
            if not nearest.asset:
                if not nearest.left_out or any(master.asset for master in fitting):
                    lacking.setdefault((one.name, nearest.left_out or "not made"), []).append(nearest.id)
                fed.add(one.name)
                continue
            size = (one.width, one.height)
            multiple = 2 if one.is_clip else 1
            placement = placed((nearest.width, nearest.height), size, one.fit, nearest.focus, multiple)
            matches.append(Match(master=nearest, format=one, placement=placement))
    sentences = [
        f"{name}: {len(ids)} not made, because the row that would feed it is {why}: {', '.join(ids[:SHOWN])}"
        + (", ..." if len(ids) > SHOWN else "")
        for (name, why), ids in lacking.items()
    ]
    fed |= {match.format.name for match in matches}
    kinds = {True: "clips", False: "pictures"}
    sentences += [
        f"{one.name}: nothing to deliver; it takes {kinds[one.is_clip]}, and the campaign has none"
        for one in formats
        if one.name not in fed
    ]
    return matches, sentences


def _distance(master: Master, one: NamedFormat) -> float:
    return abs(math.log(master.aspect / one.aspect))


def _groups(masters: Iterable[Master]) -> Iterator[list[Master]]:
    """Yield the outputs that show the same thing in several shapes, in the order of the first of each."""
    masters = list(masters)
    slots = _slots(masters)
    groups: dict[Any, list[Master]] = {}
    failed: dict[Any, list[Master]] = {}
    for master in masters:
        subject = _subject(master)
        if master.n is None:
            failed.setdefault(subject, []).append(master)
        else:
            groups.setdefault((subject, slots[master.id, master.n]), []).append(master)
    for (subject, _), group in list(groups.items()):
        # A request that failed as a whole would have fed every number; another shape does not stand in for it unseen.
        group.extend(failed.get(subject, ()))
    seen = {subject for subject, _ in groups}
    alone = [group for subject, group in failed.items() if subject not in seen]
    for group in [*groups.values(), *alone]:
        shapes: dict[Any, Master] = {}
        for master in group:
            other = shapes.setdefault((master.is_clip, master.columns.get(SHAPE)), master)
            if other is not master:
                raise JobError(
                    f"{other.id} and {master.id} are equal in all x_ columns, so that either could feed a format; "
                    "give the manifest an x_ column in which they differ, or leave x_shape out"
                )
        yield group


def _slots(masters: Iterable[Master]) -> dict[tuple[str, int | None], int | None]:
    """Return by id and number which of its row's outputs each master is, from 0: a re-roll is what it stands for.

    A re-roll of a re-roll replaces a number beyond the row's own; it takes the first place that is free.
    """
    by_id: dict[str, list[Master]] = {}
    for master in masters:
        by_id.setdefault(master.id, []).append(master)
    slots: dict[tuple[str, int | None], int | None] = {}
    for request_id, own in by_id.items():
        rerolled = {
            master.n: master.columns["replaces"] for master in own if master.columns.get("replaces") is not None
        }
        taken = {master.n for master in own if master.n not in rerolled}
        slots.update({(request_id, n): n for n in taken})
        for n, replaced in sorted(rerolled.items()):
            is_free = replaced < len(own) and replaced not in taken
            slot = replaced if is_free else next(place for place in range(len(own) + 1) if place not in taken)
            taken.add(slot)
            slots[request_id, n] = slot
    return slots


def _subject(master: Master) -> Any:
    if master.columns.get(SHAPE) in {None, ""}:
        return ("id", master.id)
    own = {name: value for name, value in master.own_columns.items() if name not in {SHAPE, *FOCUS_COLUMNS}}
    return ("columns", tuple(sorted((name, repr(value)) for name, value in own.items())))


def out_of_bounds(matches: Iterable[Match], crop_max: float | None, enlarge_max: float | None) -> list[str]:
    """Return a line for each file that crops or enlarges its master further than a delivery allows."""
    lines = []
    for match in matches:
        crop, enlargement = match.placement.crop, match.placement.enlargement
        if crop_max is not None and crop > crop_max + 1e-9:
            lines.append(f"{match.maker}: {crop:.1%} of the master would be cropped, over crop_max: {crop_max:g}")
        if enlarge_max is not None and enlargement > enlarge_max + 1e-9:
            lines.append(f"{match.maker}: enlarged {enlargement:.2f} times, over enlarge_max: {enlarge_max:g}")
    return lines
