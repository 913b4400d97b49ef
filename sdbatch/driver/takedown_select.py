"""What a takedown means: outputs made from a source or picked by an expression, and all that was made from them.

    sources, expression + rows of every commit --> meant_by() --> Meant: outputs, withdrawn sources, rows that used them

Every commit is looked at, also those of older keys and those that count no longer: their files may lie there still.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sdbatch.campaign import layout
from sdbatch.campaign.files import each_of, files_by_run, request_parts, run_ids
from sdbatch.campaign.history import commit_rows
from sdbatch.campaign.judged import Judged
from sdbatch.campaign.read import read_requests
from sdbatch.campaign.schema import EFFECTIVE, METADATA
from sdbatch.columns import JOINED, SOURCE_ROLES
from sdbatch.driver.picking import Picker, Selection, columns_of
from sdbatch.encode.asset import read_embedded
from sdbatch.errors import JobError, UserError
from sdbatch.formats import CLIPS
from sdbatch.plan.sources import ASSET_SCHEME, listed
from sdbatch.review.files import read_verdicts
from sdbatch.storage import Store, parse_url
from sdbatch.where import Kind, Where, compile_where, kind_of

_DIGEST: Final = re.compile(r"(sha256:)?([0-9a-fA-F]{64})|etag:.+")
_KNOWN: Final = ("sha256:", "etag:")
"""How a content's digest begins; a source that was not there has another mark."""
_READ: Final = ("id", "request_key", "n", "status", "asset", "sha256", "source_digests", *SOURCE_ROLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeantOutput:
    """An output that is to be taken down.

    Attributes:
        id: Id of its request.
        request_key: Its key; "" of a file that no commit names and that does not say it.
        n: Its number.
        asset: Path of its file.
        sha256: Of its file, as committed; "" where no commit names it.
        why: What it was named by, or made from.
    """

    id: str
    request_key: str
    n: int
    asset: str
    sha256: str
    why: str


@dataclass(kw_only=True)
class Meant:
    """Everything that a takedown is about.

    Attributes:
        outputs: The outputs, by path of the file.
        urls: Sources that are withdrawn, by URL.
        digests: Their contents.
        made: Contents of the outputs, which may be sources of others.
        ids: Ids of the rows that used one of these, or are one of the outputs.
        rows: These rows, (id, request key, n), by their commit.
    """

    outputs: dict[str, MeantOutput] = field(default_factory=dict)
    urls: set[str] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    rows: dict[str, set[tuple[str, str, int | None]]] = field(default_factory=dict)

    @property
    def contents(self) -> set[str]:
        """Contents that nothing may be made from."""
        return self.digests | self.made


def meant_by(store: Store, sources: Sequence[str], where: str | None) -> Meant:
    """Return what some sources and an expression mean.

    Args:
        store: The campaign.
        sources: URLs as in a manifest, or digests of contents.
        where: Expression over the columns of metadata, x_* among them; see `sdbatch.where`.

    Raises:
        UserError: When nothing was made from a source, or a commit is not readable.
        WhereRefused: When the expression is none.
    """
    own = _own_columns(store) if where is not None and "x_" in where else _OwnColumns()
    compiled = compile_where(where, own.kinds, "--where") if where is not None else None
    names = [*_READ, *(name for name in (compiled.names if compiled else ()) if name in METADATA.names)]
    columns = [METADATA.field(name) for name in dict.fromkeys(names)]
    rows = _committed(store, pa.schema([*columns, ("commit", pa.string())]))
    used = _Used(rows)
    meant = Meant()
    for text in sources:
        _name_source(used, text, meant)
    found: dict[int, str] = {}
    for url in sorted(meant.urls):
        found.update(dict.fromkeys(used.by_url.get(url, ()), f"source {url}"))
    for digest in sorted(meant.digests):
        for place in used.by_digest.get(digest, ()):
            found.setdefault(place, f"source {digest}")
    if compiled is not None:
        for place in _holding(store, rows, compiled, own):
            found.setdefault(place, f"where {compiled.text}")
    _follow(used, found, meant)
    _add_unnamed(store, rows, meant)
    return meant


def _committed(store: Store, schema: pa.Schema) -> pa.Table:
    paths = [path for files in files_by_run(store) for path in files.commits]
    return pa.concat_tables(
        [schema.empty_table(), *each_of(lambda path: commit_rows(store, path, schema, None, is_whole=True), paths)]
    )


class _Used:
    """Rows of commits by the sources that they used.

    Args:
        rows: Columns as in `_READ`, and `commit`.

    Attributes:
        rows: The same as values, by column.
        by_url: Places of the rows that used a URL.
        by_digest: Places of the rows that used a content.
        contents: Contents that a URL had.
    """

    def __init__(self, rows: pa.Table) -> None:
        self.rows = {name: rows.column(name).to_pylist() for name in (*_READ, "commit")}
        self.by_url: dict[str, list[int]] = {}
        self.by_digest: dict[str, list[int]] = {}
        self.contents: dict[str, set[str]] = {}
        roles = zip(*(self.rows[role] for role in SOURCE_ROLES), strict=True)
        for place, (values, told) in enumerate(zip(roles, self.rows["source_digests"], strict=True)):
            urls = [_as_url(url) for value in values for url in listed(value)]
            digests = list(told or ())
            for url in set(urls):
                self.by_url.setdefault(url, []).append(place)
            known = {digest for digest in digests if digest.startswith(_KNOWN)}
            for digest in known:
                self.by_digest.setdefault(digest, []).append(place)
            if len(urls) == len(digests):
                for url, digest in zip(urls, digests, strict=True):
                    self.contents.setdefault(url, set()).update({digest} & known)


def _as_url(text: str) -> str:
    if text.startswith(ASSET_SCHEME):
        return text
    try:
        return parse_url(text).url
    except UserError:  # an older version may have written another form
        return text


def _name_source(used: _Used, text: str, meant: Meant) -> None:
    """Add a source, by URL or by digest, and the contents that it had."""
    digest = _DIGEST.fullmatch(text)
    if digest:
        named = f"sha256:{digest[2].lower()}" if digest[2] else text
        if named not in used.by_digest:
            hint = "" if text.startswith("etag:") else "; sources in buckets are known by their ETag: name those by URL"
            raise JobError(f"--source {text}: nothing in the campaign was made from it{hint}")
        meant.digests.add(named)
        return
    url = _as_url(text)
    if url not in used.by_url:
        raise JobError(f"--source {text}: nothing in the campaign was made from it; name it as the manifest does")
    meant.urls.add(url)
    meant.digests |= used.contents.get(url, set())


def _follow(used: _Used, found: Mapping[int, str], meant: Meant) -> None:
    """Add some rows, every other output of the same request key and number, and all that was made from any of it."""
    by_output: dict[tuple[str, int], list[int]] = {}
    keys, numbers, assets = (used.rows[name] for name in ("request_key", "n", "asset"))
    for place, asset in enumerate(assets):
        if asset and layout.asset_parts(asset):
            by_output.setdefault((keys[place], numbers[place]), []).append(place)
    waiting, known = list(found.items()), set(found)
    while waiting:
        place, why = waiting.pop()
        values = {name: used.rows[name][place] for name in ("id", "request_key", "n")}
        meant.ids.add(values["id"])
        name = (values["id"], values["request_key"], values["n"])
        meant.rows.setdefault(used.rows["commit"][place], set()).add(name)
        asset = assets[place]
        if not asset or not layout.asset_parts(asset):
            continue  # it failed, or was blocked
        sha256 = used.rows["sha256"][place] or ""
        meant.outputs.setdefault(asset, MeantOutput(**values, asset=asset, sha256=sha256, why=why))
        content = f"sha256:{sha256}"
        if sha256:
            meant.made.add(content)
        same = [(other, f"the same picture as {asset}") for other in by_output[keys[place], numbers[place]]]
        made_from = [(other, f"made from {asset}") for other in used.by_digest.get(content, ())]
        for other, other_why in (*same, *made_from):
            if other not in known:
                known.add(other)
                waiting.append((other, other_why))


def _add_unnamed(store: Store, rows: pa.Table, meant: Meant) -> None:
    """Add files that no commit names, as a killed worker leaves them, where they say that they are of it."""
    keys = {one.request_key for one in meant.outputs.values()}
    named = set(rows.column("asset").to_pylist())
    for entry in store.list(layout.ASSETS):
        parts = layout.asset_parts(entry.path)
        if entry.path in named or parts is None:
            continue
        embedded = _embedded(store, entry.path)
        if embedded.get("request_key") in keys or _digests_in(embedded.get("recipe")) & meant.contents:
            key = str(embedded["request_key"])
            why = "no commit names it; it says that it is of the same"
            meant.outputs[entry.path] = MeantOutput(
                id=parts[0], request_key=key, n=parts[2], asset=entry.path, sha256="", why=why
            )


def _embedded(store: Store, path: str) -> Mapping[str, Any]:
    suffix = path.rpartition(".")[2]
    try:
        return read_embedded(store.read(path), suffix if suffix in CLIPS else "png") or {}
    except (OSError, ValueError, UserError):  # half a file says nothing; `gc` removes it
        return {}


def _digests_in(recipe: Any) -> set[str]:
    values = [recipe.get(role) for role in SOURCE_ROLES] if isinstance(recipe, dict) else []
    return {digest for value in values for digest in listed(value)}


# --- expressions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _OwnColumns:
    """The x_* of every manifest, by id and key: the newest one counts."""

    schema: Mapping[str, pa.DataType] = field(default_factory=dict)
    values: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)

    @property
    def kinds(self) -> dict[str, Kind]:
        """What each column holds that an expression may name."""
        return {one.name: kind_of(one.type) for one in EFFECTIVE} | {
            name: kind_of(kind) for name, kind in self.schema.items()
        }


def _own_columns(store: Store) -> _OwnColumns:
    schema: dict[str, pa.DataType] = {}
    values: dict[tuple[str, str], Mapping[str, Any]] = {}
    for run in reversed(run_ids(store)):
        for path in request_parts(store, run, with_grid=True):
            part = read_requests(store, path)
            names = [name for name in part.column_names if name.startswith("x_")]
            for name in names:
                schema.setdefault(name, part.schema.field(name).type)
            column = columns_of(part)
            own = zip(*map(column, names), strict=True) if names else repeat((), part.num_rows)
            for place, theirs in zip(zip(column("id"), column("request_key"), strict=True), own, strict=True):
                values.setdefault(place, dict(zip(names, theirs, strict=True)))
    return _OwnColumns(schema=schema, values=values)


def _holding(store: Store, rows: pa.Table, where: Where, own: _OwnColumns) -> Iterator[int]:
    """Yield the places of the made outputs for which an expression holds."""
    if set(where.names) & {*JOINED}:
        rows = Judged(read_verdicts(store)).joined(rows)
    of_rows = columns_of(rows)

    def column(name: str) -> Sequence[Any]:
        if name not in own.schema:
            return of_rows(name)
        places = zip(of_rows("id"), of_rows("request_key"), strict=True)
        return [own.values.get(place, {}).get(name) for place in places]

    picker = Picker(Selection(where=where.text), own.kinds, "the campaign")
    holds = picker.add(column, rows.num_rows) & np.asarray(pc.equal(rows.column("status"), "ok")).astype(np.bool_)
    yield from np.flatnonzero(holds).tolist()
