"""A brief: axes and blocks become the rows of a manifest.

    Form, tables --> Brief --> count(), rows(), preview()

An id is made of the keys of a row's values, so it stays whatever is added, taken out or put elsewhere. A value that is
its axis's default is left out of it, so that an axis with a default can be added to a brief whose rows are rendered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sdbatch.desk.axes import Axis, ReadTable, axis_of
from sdbatch.desk.blocks import Block, Combination, Condition, block_of
from sdbatch.desk.columns import column_makers
from sdbatch.desk.count import count_of
from sdbatch.desk.form import SHAPE, BriefRefused, Form
from sdbatch.desk.sample import sample_of

ID_CHARS_MAX: Final = 128
SEED_GROUP: Final = "seed_group"


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many rows a brief has.

    Attributes:
        blocks: Rows of each block that no block before it has, by the block's name.
        rows: All of them.
        outputs: Assets that they ask for; rows without `outputs` count as one.
    """

    blocks: dict[str, int]
    rows: int
    outputs: int


class Brief:
    """A checked brief.

    Args:
        form: The brief as it is written.
        folder: Folder that its files are relative to.
        read: Reads the table of an axis.
        label: What messages call it.
        shape: The axis that its formats make, if it has formats.

    Attributes:
        axes: Its axes, in the order that ids have.
        blocks: Its blocks.
        empty_blocks: Names of those that were found to have no row, once `rows` was read to its end.

    Raises:
        BriefRefused: Naming what is wrong.
        ManifestError: When a table cannot be read.
    """

    def __init__(self, form: Form, folder: Path, read: ReadTable, label: str, shape: Axis | None = None) -> None:
        self._form = form
        self._label = label
        axes = [axis_of(name, axis, folder, read, f"{label}: axes.{name}") for name, axis in form.axes.items()]
        self.axes: Sequence[Axis] = axes if shape is None else [*axes, shape]
        columns = form.columns
        if shape is not None:
            sizes = {name: f"{{{{ {SHAPE}.{name} }}}}" for name in ("width", "height") if name not in columns}
            columns = {**columns, **sizes}
        self._makers = column_makers(columns, self.axes, label)
        self._same_seed = self._numbers(form.same_seed, "same_seed")
        needed = frozenset(axis for maker in self._makers for axis in maker.axes)
        self.blocks = [self._block(at, needed) for at in range(len(form.rows))]
        self.empty_blocks: list[str] = []
        self._parts = [self._id_parts(axis) for axis in self.axes]
        for block in self.blocks:
            self._check_id_length(block)
        self._check_outputs()

    def count(self) -> Count:
        """Count the rows without making them.

        Raises:
            BriefRefused: When conditions join more values than can be looked at.
        """
        counts = {self._name(block): self._num_new(at) for at, block in enumerate(self.blocks)}
        outputs = sum(number * (block.outputs or 1) for number, block in zip(counts.values(), self.blocks, strict=True))
        return Count(blocks=counts, rows=sum(counts.values()), outputs=outputs)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the manifest, block by block; a row that an earlier block has is not made again."""
        has_outputs = any(block.outputs for block in self.blocks)
        self.empty_blocks = []
        for at, block in enumerate(self.blocks):
            earlier = [_Members(one) for one in self.blocks[:at] if one.axes == block.axes]
            is_empty = True
            for combination in block.combinations():
                is_empty = False
                if not any(combination in members for members in earlier):
                    yield self._row(combination, block.outputs, has_outputs=has_outputs)
            if is_empty:
                self.empty_blocks.append(self._name(block))

    def preview(self, count: int) -> list[dict[str, Any]]:
        """Return some rows of every block, spread over all its values."""
        each = -(-count // len(self.blocks))
        rows = []
        for block in self.blocks:
            sampled = block.sampled
            if sampled is None:
                sampled = tuple(
                    sample_of(
                        block.dimensions,
                        block.conditions,
                        self.axes,
                        count=each,
                        per=(),
                        seed=self._form.seed,
                        label=block.label,
                    )
                )
            rows += [self._row(one, block.outputs, has_outputs=block.outputs is not None) for one in sampled[:each]]
        return list({row["id"]: row for row in rows}.values())[:count]

    def id_of(self, combination: Combination, without: frozenset[int] = frozenset()) -> str:
        """Return the id of a combination, or what is left of it without some axes."""
        parts = self._parts
        found = [
            part
            for axis, value in enumerate(combination)
            if value is not None and axis not in without and (part := parts[axis][value])
        ]
        return ".".join([self._form.brief, *found])

    def _row(self, combination: Combination, outputs: int | None, *, has_outputs: bool) -> dict[str, Any]:
        row: dict[str, Any] = {"id": self.id_of(combination)}
        if self._same_seed:
            row[SEED_GROUP] = self.id_of(combination, self._same_seed)
        for maker in self._makers:
            row[maker.name] = maker.value(combination)
        if has_outputs:
            row["num_outputs"] = outputs
        for axis, value in zip(self.axes, combination, strict=True):
            row[f"x_{axis.name}"] = None if value is None else axis.keys[value]
        return row

    def _name(self, block: Block) -> str:
        return block.label.removeprefix(f"{self._label}: ")

    def _block(self, at: int, needed: frozenset[int]) -> Block:
        form = self._form.rows[at]
        block = block_of(form, self.axes, needed, f"{self._label}: rows.{at}")
        if form.sample is None:
            return block
        sampled = sample_of(
            block.dimensions,
            block.conditions,
            self.axes,
            count=form.sample.count,
            per=tuple(self._numbers(form.sample.per, f"rows.{at}.sample.per")),
            seed=self._form.seed,
            label=block.label,
        )
        return Block(
            label=block.label,
            num_axes=block.num_axes,
            dimensions=block.dimensions,
            conditions=block.conditions,
            outputs=block.outputs,
            sampled=tuple(sampled),
        )

    def _numbers(self, names: Sequence[str], place: str) -> frozenset[int]:
        by_name = {axis.name: number for number, axis in enumerate(self.axes)}
        if unknown := [name for name in names if name not in by_name]:
            raise BriefRefused(f"{self._label}: {place}: {unknown[0]} is no axis; axes are {', '.join(by_name)}")
        return frozenset(by_name[name] for name in names)

    @staticmethod
    def _id_parts(axis: Axis) -> list[str]:
        """Return what each value of an axis is in ids: its key, behind the axis's name where it has a default."""
        if axis.default is None:
            return axis.keys
        return ["" if at == axis.default else f"{axis.name}-{key}" for at, key in enumerate(axis.keys)]

    def _check_id_length(self, block: Block) -> None:
        """Refuse a block whose longest id would be over the bound, by its longest keys."""
        longest = len(self._form.brief)
        told = []
        for dimension in block.dimensions:
            for at, axis in enumerate(dimension.axes):
                part = max((self._parts[axis][row[at]] for row in dimension.rows), key=len, default="")
                longest += 1 + len(part) if part else 0
                told.append(f"{self.axes[axis].name} {len(part)}")
        if longest > ID_CHARS_MAX:
            message = (
                f"ids would have up to {longest} characters, over {ID_CHARS_MAX} ({', '.join(told)}); shorten keys"
            )
            raise BriefRefused(f"{block.label}: {message}")

    def _check_outputs(self) -> None:
        """Refuse blocks with a row in common for which they ask different outputs."""
        for at, block in enumerate(self.blocks):
            for other in self.blocks[:at]:
                if other.axes != block.axes or other.outputs == block.outputs:
                    continue
                common = self._common(block, other)
                if common:
                    where = other.label.removeprefix(f"{self._label}: ")
                    message = f"{common} of its rows are also in {where}, with other outputs"
                    raise BriefRefused(f"{block.label}: {message}; say the same, or leave them out by `where`")

    def _common(self, block: Block, other: Block) -> int:
        if block.sampled is not None or other.sampled is not None:
            one, two = (block, other) if block.sampled is not None else (other, block)
            members = _Members(two)
            return sum(combination in members for combination in one.sampled or ())
        return count_of(block.dimensions, [*block.conditions, other.membership()], block.label)

    def _num_new(self, at: int) -> int:
        """Return how many rows of a block no block before it has."""
        block = self.blocks[at]
        alike = [other for other in self.blocks[:at] if other.axes == block.axes]
        if block.sampled is not None:
            earlier = [_Members(other) for other in alike]
            return sum(not any(one in members for members in earlier) for one in block.sampled)
        whole = [other for other in alike if other.sampled is None]
        new = count_of(block.dimensions, [*block.conditions, *(_not_in(other) for other in whole)], block.label)
        sampled = {one for other in alike if other.sampled is not None for one in other.sampled}
        members, others = block.membership(), [_Members(other) for other in whole]
        return new - sum(members.holds(one) and not any(one in other for other in others) for one in sampled)


class _Members:
    """The combinations of a block, whole or sampled."""

    def __init__(self, block: Block) -> None:
        self._sampled = None if block.sampled is None else frozenset(block.sampled)
        self._membership = block.membership()

    def __contains__(self, combination: Combination) -> bool:
        if self._sampled is not None:
            return combination in self._sampled
        return self._membership.holds(combination)


def _not_in(block: Block) -> Condition:
    membership = block.membership()
    return Condition(features=membership.features, test=lambda seen: not membership.says(seen))


def plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without what is empty, for people."""
    return {name: value for name, value in row.items() if value is not None}
