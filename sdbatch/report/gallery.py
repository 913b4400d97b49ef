"""The gallery: a campaign as web pages that need no server and no network.

    effective rows with thumbnails --> gallery_pages() --> index.html, page-2.html, ...

Pages hold small thumbnails; a click opens the asset. A clip shows its first frame and is not read before somebody plays
it. The template escapes text from outside, and the content security policy lets nothing run but the one script whose
digest it names.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import pyarrow as pa
from markupsafe import Markup

from sdbatch.columns import COLUMNS, SOURCE_ROLES
from sdbatch.recipe import is_clip
from sdbatch.report.tables import python_rows

ASSETS_PER_PAGE = 2000
_SETTINGS = tuple(column.name for column in COLUMNS if column.in_gallery)


def gallery_pages(campaign: str, run: str, parts: Iterable[pa.Table], num_rows: int) -> Iterator[tuple[str, bytes]]:
    """Yield (file name, HTML) of each page.

    Args:
        campaign: URL of the campaign, for the title.
        run: The run whose manifest is shown.
        parts: Effective rows with the column `thumbnail`.
        num_rows: Number of rows in all parts, which says how many pages there are.
    """
    num_pages = max(1, -(-num_rows // ASSETS_PER_PAGE))
    pages = [{"number": number + 1, "name": page_name(number)} for number in range(num_pages)]
    cards: list[dict[str, Any]] = []
    number = 0
    for part in parts:
        for batch in part.to_batches(max_chunksize=ASSETS_PER_PAGE):  # rows as Python values are many times their size
            for row in python_rows(batch):
                cards.append(_card(row))
                if len(cards) == ASSETS_PER_PAGE and number + 1 < num_pages:
                    yield page_name(number), _render(campaign, run, cards, pages, number, num_rows)
                    cards, number = [], number + 1
    yield page_name(number), _render(campaign, run, cards, pages, number, num_rows)


def page_name(number: int) -> str:
    """Return the file name of page `number`, from 0."""
    return "index.html" if number == 0 else f"page-{number + 1}.html"


def _card(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of one metadata row that a card shows."""
    picture = row.get("thumbnail")
    settings = {name: row[name] for name in _SETTINGS if row[name] is not None}
    size = f"{row['width']} x {row['height']}" if row["width"] else ""
    shows_clip = bool(row["asset"]) and is_clip(row["task"] or "")
    if shows_clip:
        size += f", {row['num_frames']} frames, {row['fps']:g} fps"
    return {
        "id": row["id"],
        "n": row["n"],
        "status": row["status"],
        "task": row["task"],
        "model": row["model"],
        "prompt": row["prompt"] or "",
        "negative_prompt": row["negative_prompt"] or "",
        "seed": row["seed"],
        "size": size,
        "settings": settings,
        "sources": [url for role in SOURCE_ROLES for url in _listed(row[role])],
        "error": f"{row['error_type']}: {row['error_message']}" if row["error_type"] else "",
        "asset": f"../{row['asset']}" if row["asset"] else "",
        "is_clip": shows_clip,
        "picture": f"data:image/webp;base64,{base64.b64encode(picture).decode()}" if picture else "",
        "own": {name: value for name, value in row.items() if name.startswith("x_") and value is not None},
    }


def _listed(source: str | list[str] | None) -> list[str]:
    """Return the URLs of a source column, which has a list or at most one."""
    return [source] if isinstance(source, str) else source or []


def _render(
    campaign: str, run: str, cards: list[dict[str, Any]], pages: list[dict[str, Any]], number: int, num_rows: int
) -> bytes:
    def choices(name: str) -> list[str]:
        return sorted({card[name] for card in cards if card[name]})

    page = _template().render(
        campaign=campaign,
        run=run,
        cards=cards,
        pages=pages,
        number=number + 1,
        num_rows=num_rows,
        filters={name: choices(name) for name in ("task", "model", "status")},
        script=Markup(_script()),  # noqa: S704 -- our own file
        script_digest=base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode(),
    )
    return page.encode()


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_read("gallery.html"))


@cache
def _script() -> str:
    return _read("gallery.js")


def _read(name: str) -> str:
    return resources.files("sdbatch.report").joinpath(name).read_text(encoding="utf-8")
