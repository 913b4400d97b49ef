"""Which rows of a campaign a delivery is about: those for which `where` holds, and of them what people let out.

effective rows + Delivery, Selection --> chosen_rows() --> ChosenRows: masters, and why others are left out
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import compress
from typing import Final

import pyarrow as pa

from sdbatch.columns import SOURCE_ROLES
from sdbatch.deliver.matching import Master, master_of
from sdbatch.deliver.names import Template
from sdbatch.deliver.settings import Delivery
from sdbatch.driver.delivery.marks import columns_read
from sdbatch.driver.picking import Picker, Selection, columns_of, kinds_of
from sdbatch.review.wanted import wanted_rows

_READ: Final = (
    *("id", "request_key", "n", "replaces", "status", "asset", "sha256", "media_type"),
    *("task", "width", "height", "num_frames", "fps"),
    *("source_digests", *SOURCE_ROLES, "verdict", "reviewed_by"),
)
CONFLICTS_SHOWN: Final = 5
WHERE: Final = "where"
SELECTION: Final = "selection"


@dataclass(kw_only=True)
class ChosenRows:
    """Rows that a delivery is about.

    Attributes:
        masters: Their outputs, those that people hold back among them, without an asset.
        unpicked: Assets that the selection of this invocation leaves out.
        left_out: Number of made outputs that are not delivered, by why.
        warnings: What a person should know.
    """

    masters: list[Master] = field(default_factory=list)
    unpicked: set[str] = field(default_factory=set)
    left_out: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def chosen_rows(delivery: Delivery, parts: Iterable[pa.Table], template: Template, selection: Selection) -> ChosenRows:
    """Return the masters of a delivery.

    Args:
        delivery: The delivery.
        parts: Effective rows, with verdicts where somebody decided.
        template: Of the names; its columns are read too.
        selection: Which rows this invocation is about.

    Raises:
        UserError: When an expression or a name takes a column that is not there, or the selection an id.
    """
    of_delivery = Selection(where=delivery.where)
    pickers: tuple[Picker, Picker] | None = None
    names: dict[str, None] = {}
    every: list[pa.Table] = []
    is_meant: list[bool] = []
    reasons: Counter[str] = Counter()
    for part in parts:
        names.update(dict.fromkeys(part.column_names))
        template.check_fields(names)
        delivery.metadata.check_columns(names)
        if pickers is None:
            kinds = kinds_of(part)
            # An id may be the campaign's and not the delivery's, whose `where` leaves its row out.
            pickers = (Picker(of_delivery, kinds, "the campaign", "where"), Picker(selection, kinds, "the delivery"))
        holds = pickers[0].add(columns_of(part), part.num_rows)
        is_meant += holds.tolist()
        mine = part.filter(pa.array(holds))
        pickers[1].add(columns_of(mine), mine.num_rows)
        # A row's texts, recipe and stages are many times what is needed of it.
        needed = {*_READ, *template.fields, *columns_read(delivery.metadata)}
        every.append(part.select([name for name in part.column_names if name in needed or name.startswith("x_")]))
    chosen = ChosenRows()
    if pickers is None:
        return chosen
    is_picked = pickers[1].picked().tolist()
    rows = pa.concat_tables(every, promote_options="default")
    # Asked of all rows: an output that `where` leaves out may be the one that was picked.
    wanted = wanted_rows(rows, delivery.only)
    reasons[WHERE] = _num_made(rows.filter(pa.array([not is_mine for is_mine in is_meant], pa.bool_())))
    mine = rows.filter(pa.array(is_meant, pa.bool_()))
    why = compress(wanted.reasons, is_meant)
    for row, reason, picks in zip(mine.to_pylist(), why, is_picked, strict=True):
        reasons[reason or ("" if picks else SELECTION)] += row["status"] == "ok"
        master = master_of(row, delivery.focus_point, reason)
        if master is not None:
            chosen.masters.append(master)
            if not picks:
                chosen.unpicked.add(master.asset)
    chosen.left_out = {name: number for name, number in reasons.items() if name and number}
    if lines := list(map(str, wanted.conflicts)):
        more = [f"... and {len(lines) - CONFLICTS_SHOWN} rows more"] if len(lines) > CONFLICTS_SHOWN else []
        chosen.warnings += lines[:CONFLICTS_SHOWN] + more
    return chosen


def _num_made(rows: pa.Table) -> int:
    return int(rows.column("status").to_pylist().count("ok"))
