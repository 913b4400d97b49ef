"""Which rows of a campaign a delivery is about: those for which `where` holds, and of them what people let out.

effective rows + Delivery, Selection --> chosen_rows() --> ChosenRows: masters, and why others are left out
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from sdbatch.deliver.choosing import conflicts, left_out_of
from sdbatch.deliver.matching import Master, master_of
from sdbatch.deliver.names import Template
from sdbatch.deliver.settings import Delivery
from sdbatch.driver.picking import Picker, Selection, columns_of, kinds_of

_READ: Final = (
    *("id", "request_key", "n", "status", "asset", "sha256", "media_type"),
    *("task", "width", "height", "num_frames", "fps", "verdict"),
)
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
    rows: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    for part in parts:
        names.update(dict.fromkeys(part.column_names))
        template.check_fields(names)
        if pickers is None:
            kinds = kinds_of(part)
            pickers = (Picker(of_delivery, kinds, "the campaign", "where"), Picker(selection, kinds, "the campaign"))
        holds = pickers[0].add(columns_of(part), part.num_rows)
        reasons[WHERE] += _num_made(part.filter(pa.array(~holds)))
        mine = part.filter(pa.array(holds))
        pickers[1].add(columns_of(mine), mine.num_rows)
        # A row's texts, recipe and stages are many times what is needed of it.
        read = [name for name in part.column_names if name in {*_READ, *template.fields} or name.startswith("x_")]
        rows += mine.select(read).to_pylist()
    chosen = ChosenRows()
    if pickers is None:
        return chosen
    is_picked = pickers[1].picked().tolist()
    why = left_out_of(rows, delivery.only)
    for row, reason, picks in zip(rows, why, is_picked, strict=True):
        is_made = row["status"] == "ok"
        reasons[reason or ("" if picks else SELECTION)] += is_made
        master = master_of(row, delivery.focus_point, reason or "")
        if master is not None:
            chosen.masters.append(master)
            if not picks:
                chosen.unpicked.add(master.asset)
    chosen.left_out = {name: number for name, number in reasons.items() if name and number}
    if lines := conflicts(rows):
        shown = "; ".join(lines[:5]) + ("; ..." if len(lines) > 5 else "")
        chosen.warnings.append(f"{len(lines)} requests have two picks, of which none is delivered: {shown}")
    return chosen


def _num_made(rows: pa.Table) -> int:
    return int(rows.column("status").to_pylist().count("ok"))
