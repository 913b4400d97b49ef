"""Parts of a resolved manifest on the disk: written once, read back one after the other."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from sdbatch.driver.rows.parts import PART, read_parts, write_part


def _written(folder: Path, number: int) -> Path:
    path = folder / f"part-{number}.arrow"
    names = [f"row-{number}-{row}" for row in range(number + 1)]
    empty = {name: pa.nulls(len(names), PART.field(name).type) for name in PART.names if name != "id"}
    write_part(pa.table({"id": names, **empty}).select(PART.names), path)
    return path


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_parts_come_in_their_order_with_the_columns_asked_for(tmp_path: Path, count: int, ahead: bool) -> None:
    paths = [_written(tmp_path, number) for number in range(count)]

    found = list(read_parts(paths, ["id"], ahead=ahead))

    assert [part.column_names for part in found] == [["id"]] * count
    assert [part.column("id").to_pylist()[-1] for part in found] == [f"row-{n}-{n}" for n in range(count)]


@pytest.mark.parametrize("ahead", [False, True])
def test_a_part_that_is_not_there_is_told_of_in_its_turn(tmp_path: Path, ahead: bool) -> None:
    parts = read_parts([_written(tmp_path, 0), tmp_path / "missing", _written(tmp_path, 2)], ["id"], ahead=ahead)

    assert next(parts).num_rows == 1
    with pytest.raises(FileNotFoundError, match="missing"):
        next(parts)
