"""What the columns of a table are called in the manifest.

    a name in the table, --rename, --drop, --own --> ColumnNames.of() --> the manifest's name, None for one left out

Names are taken without the blanks around them and without regard to capitals. A name that is nearly a column's, or that
other programs give it (`steps`, `cfg`), is never taken for one of the user's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from sdbatch.columns import column_meant
from sdbatch.errors import Problem
from sdbatch.manifest.ids import IdFormat
from sdbatch.manifest.row_place import shown
from sdbatch.manifest.schema import COLUMNS, unknown_column
from sdbatch.manifest.tables import fault

NO_ID: Final = "is missing; rename a column to it, or make ids of columns, as in `id: '{sku}-{scene}'` (--id of build)"
_NEAR: Final = 0.8
"""How alike a name must be to a column's to be taken for a slip of the pen."""
_NOT_OF_A_NAME: Final = re.compile(r"\W+")
_BY_FOLDED: Final = {name.casefold(): name for name in COLUMNS}


class ColumnNames:
    """Names columns, and keeps in mind which there were.

    Args:
        label: The table, as messages name it.
        rename: The manifest's name of a column, by the table's name.
        drop: Columns of the table to leave out.
        ids: Format of ids that are made, if any.
        own: Whether other columns become the user's own.

    Attributes:
        label: The table, as messages name it.
        of_manifest: The manifest's names that were met, in order.
    """

    def __init__(
        self, label: str, rename: Mapping[str, str], drop: Iterable[str], ids: IdFormat | None, *, own: bool
    ) -> None:
        self.label = label
        self.ids = ids
        self.of_manifest: list[str] = []
        self.has_made_ids = False
        self._rename = {name.strip().casefold(): target for name, target in rename.items()}
        self._drop = frozenset(name.strip().casefold() for name in drop)
        self._asked = (*rename, *drop)
        self._own = own
        self._targets: dict[str, str | None] = {}
        self._has_rows = False

    def of(self, name: str) -> str | None:
        """Return what a column is called in the manifest, None when it is left out."""
        if name in self._targets:
            return self._targets[name]
        bare = name.strip()
        folded = bare.casefold()
        target = None if folded in self._drop else self._rename.get(folded) or self._own_name(bare, folded)
        self._targets[name] = target
        return target

    def is_known(self, name: str) -> bool:
        """Whether a name is that of a column, or was named by the user."""
        folded = name.strip().casefold()
        return folded in _BY_FOLDED or folded.startswith("x_") or folded in self._rename or folded in self._drop

    def named(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row by the manifest's names.

        Raises:
            ManifestError: When two columns have one name.
        """
        named: dict[str, Any] = {}
        for name, value in row.items():
            target = self.of(name)
            if target is None:
                continue
            if target in named:
                same = [one for one in row if self.of(one) == target]
                raise fault(self.label, f"is the name of two columns ({', '.join(same):.100}); drop one", column=target)
            named[target] = value
        self.see(named)
        return named

    def see(self, names: Iterable[str]) -> None:
        """Keep the names of columns that the manifest gets."""
        self._has_rows = True  # or at least a header
        self.of_manifest.extend(name for name in names if name not in self.of_manifest)

    def see_header(self, header: Iterable[str]) -> None:
        """Keep the names of a table that has a header and no rows: they are wrong or right all the same."""
        named = self.named(dict.fromkeys(header))
        if "id" in named:
            return
        if self.ids is None:
            raise fault(self.label, "is missing; the table has a header without it, and no rows", column="id")
        self.has_made_ids = True
        self.see(["id"])

    def made_id(self, row: Mapping[str, Any], named: Mapping[str, Any], number: int) -> str:
        """Return the id of a row that has none, from its columns as the table or as the manifest calls them.

        Raises:
            ValueRefused: When no id can be made.
        """
        assert self.ids is not None
        self.has_made_ids = True
        return self.ids({**{name.casefold(): value for name, value in row.items()}, **row, **named}, number)

    def problems(self, *, knows_of_id: bool = False) -> Iterator[Problem]:
        """Yield the problems of the names themselves.

        Args:
            knows_of_id: Whether it was said already what is wrong with the ids.
        """
        if self.of_manifest and "id" not in self.of_manifest and not knows_of_id:
            yield self._problem("id", NO_ID)
        if self.ids is not None and self.has_made_ids:
            seen = {*self._targets, *(name.casefold() for name in self._targets), *self.of_manifest}
            self.ids.check_columns(seen - {"id"})
        for name in self.of_manifest:
            if name not in COLUMNS and not name.startswith("x_"):
                yield self._problem(name, unknown_column(name))
        there = {name.strip().casefold() for name in self._targets}
        for name in self._asked if self._has_rows else ():
            if name.strip().casefold() not in there:
                yield self._problem(name, "is to be renamed or dropped, and the file has no such column")

    def warnings(self) -> tuple[str, ...]:
        """Return what to know of the ids that were made, or were not."""
        if self.ids is None or not self._has_rows:
            return ()
        if not self.has_made_ids:
            return ("the table has a column `id`, so no ids are made from --id; --drop id leaves it out",)
        if not self.ids.counts_rows:
            return ()
        message = "ids are made from row numbers: a row that is put in or taken out gives all after it other ids, and"
        return (f"{message} they are rendered again; name columns instead, as in --id '{{sku}}-{{scene}}'",)

    def _own_name(self, bare: str, folded: str) -> str:
        if known := _BY_FOLDED.get(folded):
            return known
        if folded.startswith("x_"):
            return f"x_{bare[2:]}"
        if not self._own or column_meant(bare, nearness=_NEAR):
            return bare
        return f"x_{_NOT_OF_A_NAME.sub('_', bare).strip('_')}"

    def _problem(self, name: str, message: str) -> Problem:
        column = name if name.isprintable() else shown(name)
        return Problem(shard=self.label, row=None, column=column, value=None, message=message)
