"""The page of a grid: a matrix of pictures for each row of the manifest, with headings that stay in sight.

    axes + metadata rows of the cells --> grid_page() --> HTML, static, without a script

Cells show the assets themselves, which lie beside the page's folder in the campaign; a clip is read when it is played.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sdbatch.recipe import is_clip
from sdbatch.report.gallery import page_template

SMALL_PIXELS = 128
"""A picture whose sides are no longer is enlarged without smoothing, since its pixels are what there is to see."""

Side = tuple[str, Sequence[str]]
"""An axis: its column, and the labels of its values."""


class GridSection(NamedTuple):
    """The cells of one row of the manifest.

    Attributes:
        id: The row's.
        cells: Place on x, place on y, metadata row with its thumbnail; None where nothing was made.
    """

    id: str
    cells: Sequence[tuple[int, int, Mapping[str, Any] | None]]


def grid_page(campaign: str, run: str, name: str, x: Side, y: Side | None, sections: Sequence[GridSection]) -> bytes:
    """Return the page.

    Args:
        campaign: URL of the campaign.
        run: The run that made it, or found it made.
        name: The grid's.
        x: Its columns.
        y: Its rows; None for one row.
        sections: One for each row of the manifest.
    """
    page = page_template("grid.html").render(
        campaign=campaign,
        run=run,
        name=name,
        x={"column": x[0], "labels": x[1]},
        y={"column": y[0], "labels": y[1]} if y else None,
        sections=[_section(section, len(x[1]), y[1] if y else [""], {x[0], y[0] if y else ""}) for section in sections],
    )
    return page.encode()


def _section(section: GridSection, num_x: int, y_labels: Sequence[str], varied: set[str]) -> dict[str, Any]:
    by_place = {(x, y): row for x, y, row in section.cells}
    first = next((row for row in by_place.values() if row), None)
    return {
        "id": section.id,
        "prompt": "" if first is None or "prompt" in varied else first["prompt"] or "",
        "rows": [
            {"label": label, "cells": [_cell(by_place.get((x, y))) for x in range(num_x)]}
            for y, label in enumerate(y_labels)
        ],
    }


def _cell(row: Mapping[str, Any] | None) -> dict[str, Any]:
    if row is None or not row["asset"]:
        said = f"{row['error_type'] or row['status']}: {row['error_message'] or ''}" if row else "not made"
        return {"asset": "", "is_clip": False, "error": said}
    thumbnail = row.get("thumbnail")
    return {
        "asset": f"../../../{row['asset']}",
        "is_clip": is_clip(row["task"] or ""),
        "is_small": max(row["width"] or 0, row["height"] or 0) <= SMALL_PIXELS,
        "width": row["width"],
        "height": row["height"],
        "alt": row["prompt"] or row["id"],
        "picture": _data_url(thumbnail) if thumbnail else "",
    }


def _data_url(thumbnail: bytes) -> str:
    kind = "webp" if thumbnail.startswith(b"RIFF") else "jpeg"  # older commits hold WebPs
    return f"data:image/{kind};base64,{base64.b64encode(thumbnail).decode()}"
