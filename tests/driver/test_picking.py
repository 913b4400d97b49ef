"""Which rows a person means: expressions, globs, lists of ids, samples; over a manifest and over metadata."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdbatch.driver.id_lists import read_ids
from sdbatch.driver.picking import Selection, picked_rows
from sdbatch.driver.rows.manifest_picks import ManifestPicks
from sdbatch.errors import JobError, UserError
from sdbatch.job import parse_job
from sdbatch.manifest.read import list_shards, read_batches

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.string()),
        ("images", pa.list_(pa.string())),
        ("num_inference_steps", pa.int32()),
        ("strength", pa.float64()),
        ("seed", pa.int64()),
        ("x_locale", pa.string()),
        ("x_price", pa.float64()),
        ("x_sold", pa.bool_()),
        ("x_launch", pa.date32()),
        ("x_made", pa.timestamp("us", tz="UTC")),
        ("x_none", pa.null()),
    ]
)
DAY = dt.date(2026, 11, 26)
TEN = dt.datetime(2026, 11, 26, 10, tzinfo=dt.UTC)
ROWS: list[tuple[Any, ...]] = [
    ("mug-1", "a mug", None, 8, None, 1, "de-DE", 9.5, True, DAY, TEN, None),
    ("mug-2", "a red mug", None, 20, None, None, "fr-FR", 12.0, False, DAY, None, None),
    ("mug-3", "", None, 8, None, 3, "ja-JP", None, None, None, TEN, None),
    ("lamp-1", "a lamp", ["a.png"], 8, 0.5, 0, "de-DE", 40.0, True, dt.date(2026, 12, 24), TEN, None),
    ("lamp-2", 'a lamp\'s "glow"', ["a.png", "b.png"], 30, 0.9, None, None, -1.0, False, DAY, None, None),
    ("lamp-3", "une lampe été", ["b.png"], 8, 1.0, 7, "", 0.0, True, None, None, None),
]
EXPRESSIONS = [
    ("x_locale == 'de-DE'", "mug-1 lamp-1"),
    ("x_locale != 'de-DE'", "mug-2 mug-3 lamp-2 lamp-3"),
    ("x_locale in ['de-DE', 'fr-FR']", "mug-1 mug-2 lamp-1"),
    ("x_locale in ('de-DE',)", "mug-1 lamp-1"),
    ("x_locale in {'de-DE', null}", "mug-1 lamp-1 lamp-2"),
    ("x_locale not in ['de-DE', 'fr-FR']", "mug-3 lamp-2 lamp-3"),
    ("x_locale == null", "lamp-2"),
    ("x_locale != null", "mug-1 mug-2 mug-3 lamp-1 lamp-3"),
    ("x_locale == ''", "lamp-3"),
    ("x_locale < 'e'", "mug-1 lamp-1 lamp-3"),
    ("not x_locale < 'e'", "mug-2 mug-3 lamp-2"),
    ("x_locale == x_none", "lamp-2"),
    ("x_none == null", "mug-1 mug-2 mug-3 lamp-1 lamp-2 lamp-3"),
    ("x_none < 3", ""),
    ("'mug' in prompt", "mug-1 mug-2"),
    ("'mug' not in prompt", "mug-3 lamp-1 lamp-2 lamp-3"),
    ("prompt == ''", "mug-3"),
    ("'été' in prompt", "lamp-3"),
    ("'\"glow\"' in prompt", "lamp-2"),
    ('"lamp\'s" in prompt', "lamp-2"),
    ("'a.png' in images", "lamp-1 lamp-2"),
    ("images == null", "mug-1 mug-2 mug-3"),
    ("'a.png' in images and 'b.png' in images", "lamp-2"),
    ("x_price > 9.5", "mug-2 lamp-1"),
    ("x_price >= 9.5", "mug-1 mug-2 lamp-1"),
    ("0 <= x_price < 12", "mug-1 lamp-3"),
    ("x_price == -1", "lamp-2"),
    ("x_price == null or x_price > 30", "mug-3 lamp-1"),
    ("x_price in [0, 40]", "lamp-1 lamp-3"),
    ("x_sold", "mug-1 lamp-1 lamp-3"),
    ("not x_sold", "mug-2 mug-3 lamp-2"),
    ("x_sold == false", "mug-2 lamp-2"),
    ("x_sold == null", "mug-3"),
    ("x_sold and x_price > 5 or x_locale == 'ja-JP'", "mug-1 mug-3 lamp-1"),
    ("x_sold and (x_price > 20 or x_locale == '')", "lamp-1 lamp-3"),
    ("x_launch == '2026-11-26'", "mug-1 mug-2 lamp-2"),
    ("x_launch > '2026-11-26'", "lamp-1"),
    ("x_launch != null and x_launch <= '2026-12-24'", "mug-1 mug-2 lamp-1 lamp-2"),
    ("x_made <= '2026-11-26T10:00:00'", "mug-1 mug-3 lamp-1"),
    ("x_made < '2026-11-26T11:00:00+02:00'", ""),
    ("x_made == '2026-11-26T11:00:00+01:00'", "mug-1 mug-3 lamp-1"),
    ("seed == null", "mug-2 lamp-2"),
    ("seed == 0 or seed > 5", "lamp-1 lamp-3"),
    ("num_inference_steps == 8 and strength == null", "mug-1 mug-3"),
    ("strength >= 0.9", "lamp-2 lamp-3"),
    ("id == 'mug-1' or id in ['lamp-3']", "mug-1 lamp-3"),
    ("id >= 'mug-2'", "mug-2 mug-3"),
    ("TRUE", "mug-1 mug-2 mug-3 lamp-1 lamp-2 lamp-3"),
    ("null", ""),
    ("1 < 2 < 3", "mug-1 mug-2 mug-3 lamp-1 lamp-2 lamp-3"),
]
REFUSED = [
    ("x_local == 'de-DE'", "x_local is no column here; did you mean x_locale?"),
    ("x_locale == de-DE", "is arithmetic"),
    ("x_locale == 3", "is a number, and x_locale is text"),
    ("x_price == '3'", "is text, and x_price is a number"),
    ("x_sold == 1", "is a number, and x_sold is true or false"),
    ("x_launch == 20261126", "is a number, and x_launch is a date"),
    ("x_launch > 'soon'", "is no date; dates are written as in '2026-11-26'"),
    ("x_sold < true", "which has no order"),
    ("loras == null", "is of a kind that cannot be compared"),
    ("x_locale = 'de-DE'", "write == to compare"),
    ("__import__('os')", "is a call"),
    ("images > 'a'", "images is a list of texts"),
    ("", "is no expression"),
]


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return pa.table([list(column) for column in zip(*ROWS, strict=True)], SCHEMA)


@pytest.fixture(scope="module")
def manifest(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same rows in two shards."""
    folder = tmp_path_factory.mktemp("manifest")
    pq.write_table(table.slice(0, 4), folder / "a.parquet")
    pq.write_table(table.slice(4), folder / "b.parquet")
    return str(folder)


def _of_table(table: pa.Table, selection: Selection) -> str:
    parts = (table.slice(start, 2) for start in range(0, table.num_rows, 2))
    return " ".join(name for part in picked_rows(parts, selection) for name in part.column("id").to_pylist())


def _of_manifest(manifest: str, selection: Selection, **changes: Any) -> str:
    values = {"manifest": manifest, "output": "nowhere", "models": {"tiny": {"path": "builtin:tiny-sd"}}, **changes}
    shards = list_shards(manifest, {})
    picks = ManifestPicks(parse_job(values), selection)
    picks.begin(shards)
    ids: list[str] = []
    for shard in shards:
        for batch in read_batches(shard):
            picks.add(batch)
            ids += batch.columns["id"]
    return " ".join(name for name, is_picked in zip(ids, picks.picked(), strict=True) if is_picked)


@pytest.mark.parametrize(("text", "expected"), EXPRESSIONS)
def test_an_expression_picks_rows_of_a_manifest_and_of_metadata_alike(
    table: pa.Table, manifest: str, text: str, expected: str
) -> None:
    assert _of_table(table, Selection(where=text)) == expected
    assert _of_manifest(manifest, Selection(where=text)) == expected


def test_a_source_that_is_a_plain_text_is_a_list_of_one(tmp_path: Path) -> None:
    rows = {"id": ["a", "b", "c"], "images": ["s3://x/a.png", None, "s3://x/c.png"], "control_image": ["d", "e", None]}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")

    def of(text: str) -> str:
        return _of_manifest(str(tmp_path / "rows.parquet"), Selection(where=text))

    assert of("'s3://x/a.png' in images") == "a"
    assert of("'a' in images") == ""
    assert of("images != null and 'd' not in control_image") == "c"


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_what_cannot_be_compared_is_refused_before_a_row_is_read(manifest: str, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        _of_manifest(manifest, Selection(where=text))

    assert str(caught.value).startswith("--where: ")
    assert message in str(caught.value)


def test_a_float32_is_compared_as_a_person_reads_it(tmp_path: Path) -> None:
    rows = pa.table({"id": ["a", "b", "c"], "x_weight": pa.array([0.7, 0.5, None], pa.float32())})
    pq.write_table(rows, tmp_path / "rows.parquet")

    for text, expected in (("x_weight == 0.7", "a"), ("x_weight < 0.7", "b"), ("x_weight in [0.5, 0.7]", "a b")):
        assert _of_table(rows, Selection(where=text)) == expected
        assert _of_manifest(str(tmp_path / "rows.parquet"), Selection(where=text)) == expected


def test_an_expression_that_a_script_left_empty_does_not_mean_all_rows(table: pa.Table) -> None:
    assert not Selection(where="").is_of_all
    with pytest.raises(UserError, match="is no expression"):
        _of_table(table, Selection(where=""))


def test_what_a_row_does_not_say_is_what_the_job_says(manifest: str) -> None:
    changes = {
        "defaults": {"model": "tiny", "task": "text-to-image", "guidance_scale": 4.0},
        "models": {"tiny": {"path": "builtin:tiny-sd", "defaults": {"guidance_scale": 2.0}}, "b": {"path": "x"}},
    }

    def of(text: str) -> str:
        return _of_manifest(manifest, Selection(where=text), **changes)

    every = _of_manifest(manifest, Selection(where="true"))
    assert of("model == 'tiny' and task == 'text-to-image'") == every
    assert of("guidance_scale == 2") == every
    assert of("num_outputs == 1 and fit == 'cover'") == every
    assert of("width == null") == every  # the family's own size is not looked at
    assert of("num_inference_steps == 8") == "mug-1 mug-3 lamp-1 lamp-3"


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(only=frozenset({"mug-*"})), "mug-1 mug-2 mug-3"),
        (Selection(only=frozenset({"mug-[12]", "lamp-3"})), "mug-1 mug-2 lamp-3"),
        (Selection(only=frozenset({"*-1"})), "mug-1 lamp-1"),
        (Selection(only_from=frozenset({"lamp-2"})), "lamp-2"),
        (Selection(only_from=frozenset()), ""),
        (Selection(only=frozenset({"mug-?"}), only_from=frozenset({"lamp-2"})), "mug-1 mug-2 mug-3 lamp-2"),
        (Selection(only=frozenset({"mug-*"}), where="x_sold"), "mug-1"),
    ],
)
def test_ids_and_globs_pick_rows(table: pa.Table, manifest: str, selection: Selection, expected: str) -> None:
    assert _of_table(table, selection) == expected
    assert _of_manifest(manifest, selection) == expected


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(only=frozenset({"mug-9"})), "mug-9: the manifest has no such id"),
        (Selection(only=frozenset({"cup-*", "mug-*"})), "cup-*: the manifest has no id that fits it"),
        (
            Selection(only_from=frozenset({"mug-1", "b", "a"})),
            "--only-from: the manifest lacks 2 of its 3 ids: a, b",
        ),
        (Selection(sample=1, per=("x_local",)), "--per x_local: is no column here; did you mean x_locale?"),
    ],
)
def test_what_is_not_there_is_named(manifest: str, selection: Selection, message: str) -> None:
    with pytest.raises(JobError) as caught:
        _of_manifest(manifest, selection)

    assert str(caught.value) == message


def test_a_sample_is_spread_over_a_column_and_stays(table: pa.Table, manifest: str) -> None:
    selection = Selection(sample=1, per=("x_locale",))
    picked = _of_manifest(manifest, selection).split()
    locales = {row[0]: row[6] for row in ROWS}
    turned = table.take(pa.array(list(reversed(range(table.num_rows)))))
    more = pa.concat_tables([table, pa.table({"id": ["cup-1"], "x_locale": ["es-ES"]})], promote_options="default")

    assert sorted(str(locales[name]) for name in picked) == sorted(["de-DE", "fr-FR", "ja-JP", "", "None"])
    assert _of_table(table, selection).split() == picked
    assert sorted(_of_table(turned, selection).split()) == sorted(picked)
    assert _of_table(more, selection).split() == [*picked, "cup-1"]
    assert len(_of_table(table, Selection(sample=2)).split()) == 2
    two_each = _of_manifest(manifest, Selection(sample=2, per=("x_locale",), where="x_locale == 'de-DE'"))
    assert two_each == "mug-1 lamp-1"


def test_a_sample_of_one_id_s_outputs_tells_them_apart() -> None:
    rows = pa.table({"id": ["a"] * 8, "n": pa.array(range(8), pa.int32())})

    picked = [n for part in picked_rows([rows], Selection(sample=3)) for n in part.column("n").to_pylist()]

    assert len(set(picked)) == 3


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("ids.txt", lambda path: path.write_text("\ufeffmug-1\n\n# seen on Monday\n  lamp-2 \n")),
        ("ids", lambda path: path.write_text("mug-1\r\nlamp-2\r\n")),
        ("rows.csv", lambda path: path.write_text("Id;x_locale\nmug-1;de-DE\nlamp-2;\nmug-1;\n")),
        ("rows.jsonl", lambda path: path.write_text('{"id": "mug-1", "n": 0}\n{"id": "lamp-2"}\n')),
        ("rows.parquet", lambda path: pq.write_table(pa.table({"n": [0, 1], "id": ["mug-1", "lamp-2"]}), path)),
    ],
)
def test_a_list_of_ids_is_read_as_people_have_it(tmp_path: Path, name: str, write: Callable[[Path], Any]) -> None:
    write(tmp_path / name)

    assert read_ids(str(tmp_path / name), io.StringIO()) == {"mug-1", "lamp-2"}


def test_a_list_of_ids_comes_through_a_pipe() -> None:
    assert read_ids("-", io.StringIO("a\nb\n")) == {"a", "b"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.txt", None, "no such file"),
        ("ids.txt", b"mug 1\n", "'mug 1' is no id (line 1)"),
        ("ids.txt", b"\xff\xfe\x00", "cannot be read"),
        ("ids.txt", b"x" * 5000, "line 1 has over 4096 characters"),
        ("rows.csv", b"name,x\nmug-1,2\n", "has no column id; it has name, x"),
        ("rows.csv", b"id,x\nmug-1,2\n,3\n", "'' is no id (line 3)"),
        ("rows.csv", b"id,x\nmug-1,2\nmug-2,3,4\n", "has 3 cells, the header 2"),
        ("rows.parquet", b"none", "cannot be read"),
        ("rows.csv", b'id,x\n"mug-1,2\n', "cannot be read: unexpected end of data"),
        ("rows.csv", b"", "is empty"),
        ("rows.xlsx", b"none", "cannot be read as a workbook"),
    ],
)
def test_a_list_that_is_none_is_refused_in_a_line(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_ids(str(tmp_path / name), io.StringIO())

    assert message in str(caught.value)
    assert str(caught.value).startswith("--only-from ")
    assert len(str(caught.value).splitlines()) == 1
