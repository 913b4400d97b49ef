"""The gallery: a campaign as a web page that needs no server and no network.

    effective rows with thumbnails --> Gallery.add() --> data/*.js, thumbs/*.js, sources/*.js, recipes/*.js
                                              close() --> index.html, state.js, which names the files of data

The page's own scripts and styles stand in it, and its content security policy names them by their digests; what it
loads besides are its own files. Each is named by its content, so it is written once and never changes; `state.js` alone
is replaced, and a page that is open reads it again while a run goes on.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Final

import jinja2
import pyarrow as pa
from markupsafe import Markup

from sdbatch.report.gallery_packs import PACKS, PLACE_BITS, Packer, Put, digest_of, script_literal
from sdbatch.report.gallery_rows import chunk_values, facet_counts, merged_facets, shown_rows

CHUNK_ROWS: Final = 2000
"""Rows of one file of data: 700 KB, and a tenth of what a view shows."""
GALLERY_VERSION: Final = 1
SCRIPTS: Final = (
    "base.js",
    "data.js",
    "filter.js",
    "review.js",
    "facets.js",
    "tiles.js",
    "sheet.js",
    "matrix.js",
    "table.js",
    "details.js",
    "lightbox.js",
    "print.js",
    "main.js",
)
MEDIA_TYPES: Final = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8"}
INDEX: Final = "index.html"
STATE: Final = "state.js"
_PACKED: Final = {"thumbnail": "thumbs", "source_thumbnail": "sources", "recipe": "recipes"}
_OWN: Final = re.compile(r"(data|thumbs|sources|recipes)/[0-9a-f]{16}\.js|page-\d+\.html")
_DATA: Final = re.compile(r"data/[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A file of data.

    Attributes:
        name: Without its suffix.
        num: Rows in it.
        counts: How many of them have each value, for the columns that rows are chosen by.
    """

    name: str
    num: int
    counts: Mapping[str, Mapping[str, int]]


@dataclass(slots=True, kw_only=True)
class Gallery:
    """A gallery that grows; every row is read once.

    Attributes:
        put: Writes a file, whose path is relative to the gallery.
        chunks: Files of data that are full, or that an earlier run left.
        names: Every file that was written.
        replaced: Files of data that a fuller one has taken the place of.
    """

    put: Put
    chunks: list[Chunk] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    replaced: list[str] = field(default_factory=list)
    _open: list[pa.Table] = field(default_factory=list)
    _last: Chunk | None = None
    _packers: dict[str, Packer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Open a pack of each kind."""
        self._packers = {pack.folder: Packer(pack, self._write) for pack in PACKS}

    def add(self, rows: pa.Table) -> None:
        """Add metadata rows that have the columns `thumbnail` and, if sources are to be shown, `source_thumbnail`."""
        while rows.num_rows:
            part = rows.slice(0, CHUNK_ROWS - self._num_open)
            rows = rows.slice(part.num_rows)
            self._open.append(self._with_refs(part))
            if self._num_open == CHUNK_ROWS:
                self.chunks.append(self._chunk())
                self._open, self._last = [], None

    def flush(self, state: Mapping[str, Any]) -> None:
        """Write what was added, and the file that names everything.

        Args:
            state: What the page says of the run; see `state_values`.
        """
        if self._open and (self._last is None or self._last.num != self._num_open):
            self._last = self._chunk()
        chunks = [*self.chunks, *([self._last] if self._last else [])]
        values = {
            **state,
            "version": GALLERY_VERSION,
            "total": sum(chunk.num for chunk in chunks),
            "chunks": [{"name": chunk.name, "num": chunk.num} for chunk in chunks],
            "facets": merged_facets([chunk.counts for chunk in chunks]),
        }
        text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), default=str)
        self.put(STATE, f"sdbatch.state({script_literal(text)});\n".encode())

    def is_stale(self, name: str) -> bool:
        """Whether a file of the gallery was written for an earlier state of it."""
        return name not in self.names and _OWN.fullmatch(name) is not None

    @property
    def _num_open(self) -> int:
        return sum(part.num_rows for part in self._open)

    def _with_refs(self, rows: pa.Table) -> pa.Table:
        """Pack the pictures and recipes of rows, and return what is shown of them with the refs."""
        shown = shown_rows(rows)
        for column, folder in _PACKED.items():
            items = rows.column(column).to_pylist() if column in rows.column_names else [None] * rows.num_rows
            add = self._packers[folder].add
            refs = [add(item.encode() if isinstance(item, str) else item or None) for item in items]
            shown = shown.append_column(folder, pa.array(refs, pa.int32()))
        return shown

    def _chunk(self) -> Chunk:
        """Write the rows that are open as a file of data."""
        if self._last is not None:
            self.replaced.append(f"{self._last.name}.js")
        for packer in self._packers.values():
            packer.flush()
        rows = pa.concat_tables(self._open, promote_options="default")
        rows = pa.table({name: _filled(rows.column(name)) for name in rows.column_names})
        values = {**chunk_values(rows), "packs": self._pack_names(rows)}
        text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
        name = f"data/{digest_of(text)}"
        self._write(f"{name}.js", f'sdbatch.chunk("{name}",{script_literal(text)});\n'.encode())
        return Chunk(name=name, num=rows.num_rows, counts=facet_counts(rows))

    def _pack_names(self, rows: pa.Table) -> dict[str, dict[int, str]]:
        """Return, for each kind, the names of the packs that rows refer to, by their numbers."""
        found = {}
        for folder, packer in self._packers.items():
            numbers = {ref >> PLACE_BITS for ref in rows.column(folder).to_pylist() if ref >= 0}
            found[folder] = {number: packer.names[number] for number in sorted(numbers)}
        return found

    def _write(self, name: str, data: bytes) -> None:
        self.names.add(name)
        self.put(name, data)


def _filled(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without nulls, which stand where a part of the rows lacks it."""
    return column.fill_null("" if pa.types.is_string(column.type) else -1) if column.null_count else column


def state_values(campaign: str, run: str, state: str, **progress: Any) -> dict[str, Any]:
    """Return what the page says of the run.

    Args:
        campaign: URL of the campaign.
        run: The run whose manifest is shown.
        state: As in `status.json`: `running`, `done`, `failed`, `stopped`, `interrupted` or `cancelled`.
        progress: Of a run that goes on or ended early: `made`, `pending`, `failed`, `rate_per_s`, `eta_s`, `workers`,
            `message`, `updated_s` (seconds since 1970).
    """
    return {"campaign": campaign, "run": run, "state": state, **progress}


def chunks_of(state: bytes) -> list[Chunk]:
    """Return the files of data that a `state.js` names; none when this version did not write it."""
    text = state.decode("utf-8", "replace").strip()
    try:
        values = json.loads(json.loads(text.removeprefix("sdbatch.state(").removesuffix(");")))
        if values["version"] != GALLERY_VERSION:
            return []
        counts: list[dict[str, dict[str, int]]] = [{} for _ in values["chunks"]]
        for facet in values["facets"]:
            for place, pairs in enumerate(facet["counts"]):
                counts[place][str(facet["name"])] = {str(facet["values"][code]): int(count) for code, count in pairs}
        chunks = [
            Chunk(name=chunk["name"], num=int(chunk["num"]), counts=counts[place])
            for place, chunk in enumerate(values["chunks"])
        ]
        return chunks if all(_DATA.fullmatch(chunk.name) for chunk in chunks) else []
    except (ValueError, TypeError, KeyError, IndexError):
        return []


def index_page(campaign: str) -> bytes:
    """Return the page, whose title names the campaign; everything else it shows comes from its files."""
    scripts = [_read(name) for name in SCRIPTS]
    style = _read("gallery.css")
    page = page_template("index.html").render(
        campaign=campaign,
        style=Markup(style),  # noqa: S704 -- our own file
        style_source=_source(style),
        scripts=[Markup(script) for script in scripts],  # noqa: S704 -- our own files
        script_sources=" ".join(map(_source, scripts)),
    )
    return page.encode()


def _source(text: str) -> str:
    """Return a text's digest as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def page_template(name: str) -> jinja2.Template:
    """Return the template of a page, by its file in `page/`; what it is given is escaped."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_read(name))


@cache
def _read(name: str) -> str:
    return resources.files("sdbatch.report").joinpath("page", name).read_text(encoding="utf-8")


def written(campaign: str, run: str, parts: Iterable[pa.Table], put: Put, **state: Any) -> Gallery:
    """Write the gallery of metadata rows whole, and return it.

    Args:
        campaign: URL of the campaign.
        run: The run whose manifest is shown.
        parts: Effective rows with the columns `thumbnail` and `source_thumbnail`.
        put: Writes a file.
        state: See `state_values`.
    """
    gallery = Gallery(put=put)
    for part in parts:
        gallery.add(part)
    put(INDEX, index_page(campaign))
    gallery.flush(state_values(campaign, run, **{"state": "done", **state}))
    return gallery
