"""A job whose manifest is a table or a brief."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from sdbatch import api
from sdbatch.cli import app
from sdbatch.driver.picking import Selection
from sdbatch.driver.rows.scan import ResolvedManifest
from sdbatch.driver.rows.tables import opened_manifest
from sdbatch.driver.submit import _packed
from sdbatch.errors import JobError, ManifestError, UserError, WarningsRefused
from sdbatch.job import Job, parse_job

ROWS: list[dict[str, Any]] = [
    {
        "id": f"row-{n}",
        "prompt": f"a caf\u00e9 by the sea, {n}",
        "guidance_scale": 1 + n / 8,
        "seed": n,
        "x_sku": f"s{n}",
    }
    for n in range(40)
]


def _job(manifest: Any, **more: Any) -> Job:
    defaults = {"task": "text-to-image", "model": "tiny-sd", "num_inference_steps": 2}
    models = {"tiny-sd": {"path": "builtin:tiny-sd", "batch_size": 4}}
    return parse_job({"manifest": manifest, "output": "out", "models": models, "defaults": defaults, **more})


def _keys(job: Job) -> dict[str, str]:
    manifest = ResolvedManifest(job)
    try:
        parts = pa.concat_tables(manifest.parts(["id", "request_key"]))
        return dict(zip(parts.column("id").to_pylist(), parts.column("request_key").to_pylist(), strict=True))
    finally:
        manifest.close()


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Path]:
    """The same rows in every form."""
    import csv

    header, cells = list(ROWS[0]), [list(row.values()) for row in ROWS]
    text = io.StringIO()
    german = [[str(value).replace(".", ",") if isinstance(value, float) else value for value in row] for row in cells]
    csv.writer(text, delimiter=";").writerows([[name.upper() for name in header[:-1]] + ["x_sku"], *german])
    (tmp_path / "t.csv").write_bytes(text.getvalue().encode("cp1252"))
    book = openpyxl.Workbook()
    for row in [header, *cells]:
        book.active.append(row)
    book.create_sheet("Notes").append(["nothing"])
    book.save(tmp_path / "t.xlsx")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "t.parquet")
    return {path.suffix[1:]: path for path in tmp_path.glob("t.*")}


def test_a_table_gives_equal_request_keys_in_every_form(tables: dict[str, Path]) -> None:
    manifests: list[Any] = [str(tables[kind]) for kind in ("parquet", "csv", "jsonl")]
    keys = [_keys(_job(one)) for one in [*manifests, {"path": str(tables["xlsx"]), "sheet": "Sheet"}]]

    assert len(keys[0]) == 40
    assert len(set(keys[0].values())) == 40
    assert keys[1:] == keys[:1] * 3


def test_a_check_says_which_tables_of_a_folder_are_not_read(tables: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "u.PARQUET").write_bytes(tables["parquet"].read_bytes())
    (tmp_path / "notes.md").write_text("none")
    report = api.check(_job(str(tmp_path)))

    assert report.rows == 40
    said = "not read are t.csv, t.jsonl, t.xlsx, u.PARQUET; of a folder its files *.parquet are the manifest"
    assert report.notes == [f"{tmp_path}: {said}"]
    assert api.check(_job(str(tables["parquet"]))).notes == []
    assert api.check(_job(str(tmp_path / "*.parquet"))).notes == []


def test_a_check_says_how_a_table_was_read_and_where_its_problems_are(tables: dict[str, Path], tmp_path: Path) -> None:
    report = api.check(_job(str(tables["csv"])))
    assert [note.split(": ")[1][:20] for note in report.notes] == [
        "is read as cp1252 (W",
        "has ; between its ce",
        "has decimals with a ",
    ]
    (tmp_path / "bad.csv").write_text("id,prompt,height\na,p,64\nb,p,63\n")
    with pytest.raises(ManifestError, match=r"line 3 of bad.csv \(b\): height 63 is not a multiple of 8"):
        api.check(_job(str(tmp_path / "bad.csv")))
    (tmp_path / "bad2.csv").write_text("id,prompt,height\na,p,tall\n")
    with pytest.raises(ManifestError, match=r"line 2 of .*bad2.csv \(a\): height 'tall' is not a whole number"):
        api.check(_job(str(tmp_path / "bad2.csv")))


def test_a_table_may_be_named_with_options_and_its_digest_is_kept(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("SKU,Text,Season\nA 1,a beach,summer\n")
    job = _job({"path": str(table), "id": "{sku}", "rename": {"text": "prompt"}, "own": True})

    with opened_manifest(job) as manifest:
        (file,) = Path(manifest.url).glob("*.parquet")
        assert pq.read_table(file).to_pylist() == [
            {"x_SKU": "A 1", "prompt": "a beach", "x_Season": "summer", "id": "A-1"}
        ]
        assert manifest.tables == {str(table): hashlib.sha256(table.read_bytes()).hexdigest()}
    assert not file.exists()
    warned = api.check(_job({"path": str(table), "id": "{row}", "rename": {"text": "prompt"}, "own": True}))
    assert "ids are made from row numbers" in warned.lines()[0]


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ({"path": "t.csv", "shet": "A"}, "manifest.shet: unknown key; did you mean sheet?"),
        ({"sheet": "A"}, "manifest.path: missing"),
        (7, "manifest: 7 should be a valid string"),
        ("", "manifest: '' should have at least 1 character"),
    ],
)
def test_a_wrong_manifest_key_is_named(manifest: Any, said: str) -> None:
    with pytest.raises(JobError) as caught:
        _job(manifest)

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (
            "none.csv",
            f"manifest: none.csv: no such file at {Path.cwd()}/none.csv; a job's paths begin in the folder where",
        ),
        ("/none/none.csv", "manifest: /none/none.csv: no such file"),
        (__file__.replace("test_table_manifests.py", ""), "no Parquet file at"),
        ({"path": "folder/", "own": True}, "manifest: folder/: own is for one table"),
        ({"path": "t.csv", "sheet": "A"}, "has no sheets; only a workbook"),
        ("none.yaml", "manifest: none.yaml: no such file at"),
        ("s3://b/brief.yaml", "a brief lies on this machine"),
    ],
)
def test_a_manifest_that_cannot_be_built_is_named(manifest: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        api.check(_job(manifest))

    assert said in str(caught.value)


def test_a_run_keeps_the_digest_of_its_table_and_another_form_of_it_makes_nothing(
    tables: dict[str, Path], tmp_path: Path, job_of: Callable[..., dict[str, Any]]
) -> None:
    values = job_of(str(tables["csv"]))
    first = api.run(values, Selection(only=frozenset({"row-0", "row-3"})), in_process=True)
    assert (first.counts["rows_ok"], first.counts["assets_put"]) == (2, 2)
    (record,) = Path(values["output"]).glob("runs/*/run.json")
    digest = hashlib.sha256(tables["csv"].read_bytes()).hexdigest()
    assert json.loads(record.read_text())["manifest"] == {
        "rows": 40,
        "shards": 1,
        "tables": {str(tables["csv"]): digest},
    }

    again = {**values, "manifest": {"path": str(tables["xlsx"]), "sheet": "sheet"}}
    assert api.plan(again).rows == {"reused": 2, "new": 38}
    assert api.plan(again, Selection(only=frozenset({"row-0", "row-3"}))).assets == 0


def test_set_may_name_a_table(tables: dict[str, Path]) -> None:
    job = parse_job(_job("m").model_dump(mode="json"), (f"manifest={tables['csv']}",))
    assert job.manifest == str(tables["csv"])
    job = parse_job(_job("m").model_dump(mode="json"), ("manifest={path: a.xlsx, sheet: B}",))
    assert (job.manifest_path, job.manifest) == ("a.xlsx", job.manifest)
    assert parse_job(job.model_dump(mode="json"), ("manifest.sheet=C",)).model_dump()["manifest"]["sheet"] == "C"
    dated = parse_job({**_job("m").model_dump(mode="json"), "manifest": {"path": "a-${date}.csv"}}, date="2026-11-27")
    assert dated.manifest_path == "a-2026-11-27.csv"


# --- briefs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def brief(tmp_path: Path) -> Path:
    """A brief with two tables."""
    (tmp_path / "products.csv").write_bytes("SKU;Name\nm1;K\u00e4sebrett\np1;Teller\n".encode("cp1252"))
    book = openpyxl.Workbook()
    for row in (["locale", "text"], ["de", "auf dem Tisch"], ["ja", None]):
        book.active.append(row)
    book.save(tmp_path / "locales.xlsx")
    form = {
        "brief": "spring",
        "axes": {
            "product": {"table": "products.csv", "key": "sku"},
            "locale": {"table": "locales.xlsx", "key": "locale"},
        },
        "rows": [{"for": ["product", "locale", "shape"], "where": "locale.text != null"}],
        "formats": ["instagram-story", "instagram-square"],
        "enlarge_max": 40,
        "columns": {"prompt": "{{ product.Name }} {{ locale.text }}", "strength": None},
    }
    (tmp_path / "brief.yaml").write_text(yaml.safe_dump(form, sort_keys=False))
    return tmp_path / "brief.yaml"


def test_a_brief_is_a_manifest(brief: Path) -> None:
    job = _job(str(brief))
    with opened_manifest(job) as manifest:
        (file,) = Path(manifest.url).glob("*.parquet")
        rows = pq.read_table(file).to_pylist()
        assert sorted(Path(path).name for path in manifest.tables) == ["brief.yaml", "locales.xlsx", "products.csv"]
        assert [note.split(": ")[1][:20] for note in manifest.notes] == ["is read as cp1252 (W", "has ; between its ce"]

    assert [row["id"] for row in rows] == [
        "spring.m1.de.9x16",
        "spring.m1.de.1x1",
        "spring.p1.de.9x16",
        "spring.p1.de.1x1",
    ]
    assert rows[1] == {
        "id": "spring.m1.de.1x1",
        "prompt": "K\u00e4sebrett auf dem Tisch",
        "strength": None,
        "width": 64,
        "height": 64,
        "x_product": "m1",
        "x_locale": "de",
        "x_shape": "1x1",
    }
    report = api.check(job)
    assert (report.rows, len(report.notes)) == (4, 2)


def _change(brief: Path, change: Callable[[dict[str, Any]], None]) -> None:
    form = yaml.safe_load(brief.read_text())
    change(form)
    brief.write_text(yaml.safe_dump(form, sort_keys=False))


def test_what_a_brief_made_keeps_its_ids_and_request_keys(brief: Path) -> None:
    _change(brief, lambda form: form.update(same_seed=["locale", "shape"]))
    before = _keys(_job(str(brief)))
    assert len(before) == len(set(before.values())) == 4

    def after() -> tuple[int, int]:
        """Return how many of the first rows are as they were, and how many rows there are."""
        now = _keys(_job(str(brief)))
        return sum(now.get(name) == key for name, key in before.items()), len(now)

    products = brief.parent / "products.csv"
    products.write_bytes("Name;SKU;x\nTeller;p1;\nK\u00e4sebrett;m1;\nneu;n1;\n".encode("cp1252"))
    assert after() == (4, 6)
    _change(brief, lambda form: form["formats"].insert(0, "instagram-post"))
    assert after() == (4, 9)
    _change(brief, lambda form: form["axes"].update(style={"values": ["plain", "neon"], "default": "plain"}))
    assert after() == (4, 9)
    _change(brief, lambda form: form["rows"][0].update({"for": ["style", "shape", "locale", "product"]}))
    assert after() == (4, 18)
    _change(brief, lambda form: form["columns"].update(x_note="{{ style }}"))
    assert after() == (4, 18)
    _change(brief, lambda form: form["columns"].update(prompt="{{ product.Name }} {{ locale.text }}!"))
    assert after() == (0, 18)


def test_a_problem_of_a_brief_s_row_names_the_brief_and_the_id(brief: Path) -> None:
    text = brief.read_text()
    brief.write_text(text.replace("locale.text != null", "1 == 1"))
    with pytest.raises(ManifestError) as caught:
        api.check(_job(str(brief)))
    assert [str(problem).replace(str(brief.parent), "") for problem in caught.value.problems] == [
        f"row {row} of /brief.yaml (spring.{product}.ja.{shape}): prompt cannot be made: locale.text is empty; "
        "{{ locale.text or '' }} leaves it out"
        for row, product, shape in ((3, "m1", "9x16"), (4, "m1", "1x1"), (7, "p1", "9x16"), (8, "p1", "1x1"))
    ]

    brief.write_text(text.replace("strength: null", "strength: 7"))
    with pytest.raises(ManifestError, match=r"row 1 of brief.yaml \(spring.m1.de.9x16\)|4 rows: strength 7"):
        api.check(_job(str(brief)))


def test_a_brief_is_counted_shown_and_built(brief: Path, tmp_path: Path) -> None:
    counted = api.count_brief(brief)
    assert (counted.rows, counted.outputs, counted.blocks) == (4, 4, {"rows.0": 4})
    assert [(one.name, one.shape, one.master) for one in counted.formats] == [
        ("instagram-story", "9x16", ""),
        ("instagram-square", "1x1", ""),
    ]
    with pytest.raises(JobError, match="name the job, as in --job"):
        api.preview_brief(brief)
    shown = api.preview_brief(brief, 4, _job("m"))
    assert {row["id"] for row in shown} == {f"spring.{p}.de.{s}" for p in ("m1", "p1") for s in ("9x16", "1x1")}
    built = api.build_brief(brief, tmp_path / "m", _job("m"), shards=2)
    assert (built.rows, len(built.files), len(built.notes)) == (4, 2, 2)
    assert _keys(_job(str(tmp_path / "m"))) == _keys(_job(str(brief)))


def test_blanks_at_the_ends_of_a_briefs_texts_are_said(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("sku,season\nmug,summer \nplate,winter\n")
    (tmp_path / "brief.yaml").write_text(
        "brief: b\naxes: {p: {table: p.csv, key: sku}}\nrows: [{for: [p], where: \"p.season == 'winter'\"}]\n"
        'columns: {prompt: "{{ p.season }}"}\n'
    )
    said = "p.csv: season has texts with blanks at their ends, which count, as 'summer ' on line 2"

    assert api.count_brief(tmp_path / "brief.yaml").notes == [said]


def test_a_block_of_a_brief_whose_conditions_never_hold_is_warned_of(brief: Path) -> None:
    _change(
        brief, lambda form: form["rows"].append({"for": ["product", "locale", "shape"], "where": "locale == 'de_DE'"})
    )
    (warning,) = api.check(_job(str(brief))).warnings
    assert warning.message == "rows.1 has no rows: its conditions hold for none"

    _change(brief, lambda form: form["rows"].pop(0))
    (warning,) = api.check(_job(str(brief))).warnings
    assert warning.message == "has no rows: there is nothing to make"


def test_a_table_without_rows_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,prompt\n")
    job = _job(str(tmp_path / "t.csv"))
    said = "has no rows: there is nothing to make"

    assert [warning.message for warning in api.check(job).warnings] == [said]
    assert [text.endswith(said) for text in api.plan(job).warnings] == [True]
    with pytest.raises(WarningsRefused):
        api.check(job, strict=True)


def test_the_brief_of_the_documentation_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/campaign/briefs.md").read_text(encoding="utf-8")
    text = page.split("```yaml\nbrief: spring", 1)[1].split("```", 1)[0]
    (tmp_path / "brief.yaml").write_text(f"brief: spring{text}")
    (tmp_path / "products.csv").write_text("sku,name,name_ja,season\nm,mug,\u30de\u30b0,winter\np,plate,,summer\n")
    book = openpyxl.Workbook()
    book.active.title = "Scenes"
    for row in (["name", "text", "season"], ["beach", "at sea", "summer"], ["hero", "alone", None]):
        book.active.append(row)
    book.save(tmp_path / "scenes.xlsx")

    # The plate at the beach in two locales, since it has no Japanese name; heroes of both in all three.
    assert api.count_brief(tmp_path / "brief.yaml").blocks == {"rows.0": 2 * 3, "rows.1": 2 * 3 * 3}


def test_equal_ids_of_unlike_rows_are_refused(tmp_path: Path) -> None:
    form = {
        "brief": "b",
        "axes": {"a": {"values": ["x"]}, "c": {"values": ["x"]}},
        "rows": [{"for": ["a"]}, {"for": ["c"]}],
        "columns": {"prompt": "p"},
    }
    (tmp_path / "brief.yaml").write_text(yaml.safe_dump(form))
    with pytest.raises(ManifestError, match=r"id 'b.x' appears twice; first in row 1"):
        api.build_brief(tmp_path / "brief.yaml", tmp_path / "m")


# --- what is sent, and what is printed ------------------------------------------------------------------------------


def _sent(job_file: Path, job: Job, folder: Path) -> set[str]:
    with _packed(job_file, job, folder, ()) as (archive, _):
        assert archive is not None
        with zipfile.ZipFile(archive) as package:
            return set(package.namelist())


def test_tables_are_sent_along_though_git_ignores_them(brief: Path, tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.csv\n*.xlsx\nbrief.yaml\n")
    (tmp_path / "job.yaml").write_text("x")
    (tmp_path / "other.csv").write_text("id\na\n")

    sent = _sent(tmp_path / "job.yaml", _job("brief.yaml"), tmp_path)
    assert {"brief.yaml", "products.csv", "locales.xlsx"} <= sent
    assert "other.csv" not in sent
    assert "other.csv" in _sent(tmp_path / "job.yaml", _job({"path": "other.csv", "own": True}), tmp_path)
    (tmp_path / "sub").mkdir()
    brief.rename(tmp_path / "sub" / "brief.yaml")
    text = (tmp_path / "sub" / "brief.yaml").read_text()
    (tmp_path / "sub" / "brief.yaml").write_text(text.replace("products.csv", "../products.csv"))
    with pytest.raises(JobError, match=r"products.csv: the brief needs it, and it lies outside of .*sub"):
        _sent(tmp_path / "sub" / "job.yaml", _job("brief.yaml"), tmp_path / "sub")


@pytest.mark.parametrize(
    ("place", "value"), [("manifest", "../t.csv"), ("allow", "x/../../pictures/"), ("path", "../m")]
)
def test_what_a_job_names_outside_of_what_is_sent_is_refused(place: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id\na\n")
    for name in ("pictures", "m", "sub/x"):
        (tmp_path / name).mkdir(parents=True)
    job = _job(value if place == "manifest" else str(tmp_path / "t.csv"))
    model = job.models["tiny-sd"].model_copy(update={"path": value if place == "path" else "builtin:tiny-sd"})
    sources = job.sources.model_copy(update={"allow": [value]}) if place == "allow" else job.sources
    job = job.model_copy(update={"models": {"tiny-sd": model}, "sources": sources})
    (tmp_path / "sub" / "job.yaml").write_text("x")

    with pytest.raises(JobError, match=rf"{re.escape(value)}: lies outside of .*sub, which is sent"):
        _sent(tmp_path / "sub" / "job.yaml", job, tmp_path / "sub")


def _cli(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_line_says_how_a_table_was_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("ID;Prompt;Produkt;Strength\na;p;Tasse;0,5\n")
    done = _cli("manifest", "build", tmp_path / "t.csv", "--to", tmp_path / "m", "--own")

    assert done.exit_code == 0, done.output
    assert done.stdout == f"1 rows in 1 shard(s) under {tmp_path / 'm'}\n"
    assert done.stderr.splitlines() == [
        "t.csv: has ; between its cells",
        "t.csv: has decimals with a comma, as '0,5' on line 2",
    ]
    done = _cli("manifest", "build", tmp_path / "t.csv", "--to", tmp_path / "m", "--own", "--json")
    assert len(json.loads(done.stdout)["notes"]) == 2
    assert _cli("manifest", "build", tmp_path / "t.csv", "--to", tmp_path / "m").exit_code == 2


def test_the_command_line_of_briefs(brief: Path, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(_job("brief.yaml").model_dump(mode="json", exclude={"storage"})))
    counted = _cli("brief", "count", brief, "--job", tmp_path / "job.yaml")
    assert counted.exit_code == 0, counted.output
    assert "4 rows, 4 outputs" in counted.stdout
    assert "48 x 88" in counted.stdout
    assert json.loads(_cli("brief", "count", brief, "--json").stdout)["rows"] == 4
    shown = _cli("brief", "preview", brief, "--rows", "2", "--job", tmp_path / "job.yaml")
    assert shown.exit_code == 0, shown.output
    assert "\n  prompt: K\u00e4sebrett auf dem Tisch\n" in shown.stdout or "Teller auf dem Tisch" in shown.stdout
    built = _cli("brief", "build", brief, "--job", tmp_path / "job.yaml", "--to", tmp_path / "m")
    assert (built.exit_code, built.stdout) == (0, f"4 rows in 1 shard(s) under {tmp_path / 'm'}\n")
    refused = _cli("brief", "preview", brief)
    assert refused.exit_code == 2
    assert len(refused.stderr.splitlines()) <= 3
