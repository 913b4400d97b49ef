"""Commits in which a source column held one text read as those in which it holds a list."""

from __future__ import annotations

import pyarrow as pa

from sdbatch.campaign import schema
from sdbatch.campaign.formats import read_table


def test_a_control_picture_that_an_older_run_recorded_as_a_text_is_a_list_of_one() -> None:
    older = pa.table({"id": ["a", "b"], "control_image": pa.array(["edges.png", None], pa.string())})
    newer = pa.table({"id": ["c"], "control_image": pa.array([["e.png", "d.png"]], pa.list_(pa.string()))})
    wanted = pa.schema([schema.METADATA.field(name) for name in ("id", "control_image", "ip_adapter_images")])

    tables = [read_table(schema.to_parquet(table), "commit", wanted) for table in (older, newer)]

    assert pa.concat_tables(tables).to_pylist() == [
        {"id": "a", "control_image": ["edges.png"], "ip_adapter_images": None},
        {"id": "b", "control_image": None, "ip_adapter_images": None},
        {"id": "c", "control_image": ["e.png", "d.png"], "ip_adapter_images": None},
    ]
