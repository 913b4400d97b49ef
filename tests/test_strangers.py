"""What strangers hand over: what an attack would reach is shown first, then that it does not.

Beside this file: Parquet bombs and damaged shards (manifest/test_manifest_read.py), ids, prompts, URLs and the
allow-list (manifest/test_manifest_check.py), chained URLs (test_storage.py), image bombs and foreign formats
(generate/test_sources.py), playlists and clip bombs (generate/test_source_clips.py), YAML aliases (test_config.py),
pickles and code beside a model (test_models.py), secrets (test_logs.py, test_config.py), HTML in a real browser
(report/test_gallery.py).
"""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import prompts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.revisions import PINNED

import sdbatch
from sdbatch import logs
from sdbatch.campaign import layout
from sdbatch.campaign.schema import COMMIT, from_parquet, table, to_parquet
from sdbatch.checkpoints import component_files, describe
from sdbatch.cli import output
from sdbatch.errors import ModelError, SourceMissing, StoreRefused, UserError
from sdbatch.fetch.sources import read_source
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Model
from sdbatch.manifest.row_place import ID
from sdbatch.report.gallery import written
from sdbatch.storage import SCHEMES, AllowList, Entry, LocalStore, open_store, parse_url
from sdbatch.storage.digests import sha256_files

on_a_busy_machine = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=200)

# --- model folders --------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    make_tiny_random(folder)
    assert describe("m", Model(path=str(folder)), {}).height == 64
    return folder


def _change(file: Path, **values: Any) -> None:
    found = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**found, **values}))


MODEL_TRICKS: dict[str, tuple[str, dict[str, Any], str]] = {
    "os as a library": ("model_index.json", {"unet": ["os", "system"]}, "component 'unet' is of 'os'"),
    "a module of the folder": ("model_index.json", {"unet": ["evil", "Evil"]}, "is of 'evil'"),
    "a library by its path": ("model_index.json", {"unet": ["../x", "Evil"]}, r"is of '\.\./x'"),
    "a component outside": ("model_index.json", {"../../etc": ["diffusers", "UNet2DConditionModel"]}, "component"),
    "code by auto_map": ("text_encoder/config.json", {"auto_map": {"AutoModel": "evil.Evil"}}, "auto_map"),
    "a tokenizer's code": (
        "tokenizer/tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": ["e.E", None]}},
        "auto_map",
    ),
    "shards that lie elsewhere": (
        "unet/diffusion_pytorch_model.safetensors.index.json",
        {"weight_map": {"a": "../../../secret.safetensors"}},
        "weights are .safetensors files beside it",
    ),
    "shards that are pickles": (
        "unet/diffusion_pytorch_model.safetensors.index.json",
        {"weight_map": {"a": "part-1.bin"}},
        "weights are .safetensors files beside it",
    ),
}


@pytest.mark.parametrize("name", MODEL_TRICKS)
def test_a_model_folder_with_a_trick_is_refused_before_anything_is_loaded(model: Path, name: str) -> None:
    file, values, said = MODEL_TRICKS[name]
    _change(model / file, **values)

    with pytest.raises(ModelError, match=said):
        describe("m", Model(path=str(model), revision=PINNED), {})


def test_a_configuration_without_bound_is_not_read(model: Path) -> None:
    with (model / "vae" / "config.json").open("ab") as file:
        file.truncate(17 << 20)

    with pytest.raises(ModelError, match=r"vae/config\.json has \d+ bytes, over"):
        describe("m", Model(path=str(model)), {})


def test_components_of_diffusers_own_pipelines_are_served(model: Path) -> None:
    _change(model / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])

    assert describe("m", Model(path=str(model)), {}).height == 64


def test_a_key_that_leads_out_of_a_bucket_folder_is_not_copied(model: Path) -> None:
    class Bucket(LocalStore):
        """An object store's keys may hold `..`; a local listing never does."""

        def list_linked(self, suffixes: tuple[str, ...]) -> list[Entry]:
            return [
                *super().list_linked(suffixes),
                Entry(path="unet/../../x.json", size_bytes=1, etag="", modified_s=0),
            ]

    index = json.loads((model / "model_index.json").read_text())
    with pytest.raises(ModelError, match="leads out of the folder"):
        component_files(Bucket(str(model)), index)


# --- paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["../secret", "assets/../../secret", "{folder}/secret"])
@pytest.mark.parametrize("call", ["read", "stat", "delete", "open"])
def test_a_path_that_leads_out_of_a_store_is_refused(tmp_path: Path, form: str, call: str) -> None:
    path = form.format(folder=tmp_path)  # without the guard this test removes files: only ones of its own
    (tmp_path / "secret").write_text("not yours")
    store = open_store(str(tmp_path / "campaign"), {})

    with pytest.raises(StoreRefused, match="leads out of it"):
        getattr(store, call)(path)
    with pytest.raises(StoreRefused, match="leads out of it"):
        store.put_new(path, b"x")
    with pytest.raises(StoreRefused, match="leads out of it"):
        store.put(path, b"x")
    assert (tmp_path / "secret").read_text() == "not yours"


def test_redo_of_a_campaign_that_names_files_elsewhere_removes_none(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    job = job_of(write_manifest(prompts(1)))
    sdbatch.run(job, in_process=True)
    victim = tmp_path / "assets-of-another.png"
    victim.write_bytes(b"not yours")
    store = open_store(job["output"], {})
    (path,) = [entry.path for entry in store.list() if layout.is_commit(entry.path)]
    rows = [{**row, "asset": f"../{victim.name}"} for row in from_parquet(store.read(path)).to_pylist()]
    store.put(path, to_parquet(table(rows, COMMIT)))
    sdbatch.redo(job, in_process=True)

    assert victim.read_bytes() == b"not yours"


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_source_that_is_no_file_is_missing_and_nobody_waits_for_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "source.png"
    make = {"pipe": os.mkfifo, "device": lambda p: p.symlink_to("/dev/zero"), "folder": Path.mkdir}
    make[kind](path)
    script = (
        "import sys; from sdbatch.fetch.sources import read_source; from sdbatch.storage import AllowList\n"
        "from sdbatch.storage.digests import sha256_files\n"
        "print(sha256_files([sys.argv[1]])[sys.argv[1]])\n"
        "try: read_source(sys.argv[1], {}, 100, AllowList([sys.argv[1]]))\n"
        "except Exception as error: print(type(error).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=120)

    assert done.stdout.split() == ["missing", "SourceMissing"]


# --- text that is shown ---------------------------------------------------------------------------------------------

EVIL = "a\x1b[2Jb\rc\x9b31md\u202ee\u2028f\x00g"


def test_control_characters_reach_no_terminal_and_no_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure("text")
    logging.getLogger("sdbatch.test").error("first %s\nsdbatch: forged", EVIL)
    logs.configure("json")
    logging.getLogger("sdbatch.test").error("second", extra={"unit": EVIL})
    text, line = stream.getvalue().rsplit("\n", 2)[:2]

    assert text.split("\n")[1] == "  sdbatch: forged"
    assert json.loads(line)["unit"] == EVIL
    monkeypatch.undo()

    def fail() -> None:
        raise UserError(f"s3://bucket/{EVIL}: no such file")

    with pytest.raises(typer.Exit):
        output.guarded(fail, as_json=False)
    with pytest.raises(typer.Exit):
        output.guarded(fail, as_json=True)
    output.say({"asset": EVIL}, False, f"orphan: {EVIL}")
    shown = capsys.readouterr()
    for said in (text, line, shown.out, shown.err):
        assert "[2J" in said
        assert not any(ord(letter) < 32 and letter != "\n" for letter in said)
        assert not set(said) & set("\x7f\x9b\u202e\u2028")


def test_a_message_that_is_committed_holds_no_control_characters() -> None:
    from sdbatch.campaign.write import error_columns

    assert (
        error_columns("X", EVIL, retryable=False)["error_message"]
        == r"a\u001b[2Jb\u000dc\u009b31md\u202ee\u2028f\u0000g"
    )


def test_every_text_of_a_gallery_is_text() -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'{{ 7 * 7 }}\u2028"
    row = {"id": evil, "n": 0, "prompt": evil, "task": evil, "model": evil, "seed": 1, "asset": evil, "scheduler": evil}
    rows = [
        {**row, "request_key": "0" * 64, "status": "ok", "recipe": evil},
        {**row, "request_key": evil, "status": "failed", "error_type": evil, "error_message": evil, "asset": None},
    ]
    files: dict[str, str] = {}
    written(evil, evil, [table(rows, COMMIT)], lambda name, data: files.update({name: data.decode()}))

    assert "alert(1)" in files["index.html"]
    assert set("".join(files)) <= set("abcdefghijklmnopqrstuvwxyz0123456789/.")
    for name, text in files.items():
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "\u2028" not in text or name == "index.html"  # there it is a text, in a script it was the end of a line


# --- by chance ------------------------------------------------------------------------------------------------------

NASTY = st.text(alphabet=st.sampled_from(list("ab./\\:%?#*~ \0\n\x1b\u202e-_")) | st.characters(), max_size=40)


@on_a_busy_machine
@given(NASTY)
def test_no_id_leads_an_asset_out_of_its_folder(text: str) -> None:
    if ID.fullmatch(text):
        path = layout.asset(text, "0" * 64, 0, "png")
        assert os.path.normpath(path) == path
        assert Path(path).parent == Path("assets")
        assert layout.asset_parts(path) == (text, "0" * 8, 0)


@on_a_busy_machine
@given(st.sampled_from(["", "file://", "s3://b/", "s3://", "http://", "gs://b/"]), NASTY)
def test_no_url_gets_past_the_list_of_schemes_or_out_of_a_bucket(head: str, tail: str) -> None:
    try:
        location = parse_url(head + tail)
    except UserError:
        return
    assert "::" not in head + tail
    assert "\0" not in head + tail
    assert location.scheme in SCHEMES
    assert not {"..", "."} & set(location.path.split("/"))
    assert parse_url(location.url) == location


@pytest.fixture(scope="module")
def brand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strangers")
    (folder / "brand" / "inner").mkdir(parents=True)
    (folder / "secret").write_text("not yours")
    (folder / "brand" / "out").symlink_to(folder)
    return folder / "brand"


@on_a_busy_machine
@given(st.lists(st.sampled_from(["..", ".", "inner", "out", "secret", "brand", "a.png", "", "~"]), max_size=6))
def test_no_path_that_is_allowed_leaves_the_allowed_folder(brand: Path, parts: list[str]) -> None:
    url = f"{brand}/{'/'.join(parts)}"
    if AllowList([str(brand)]).problem(url) is None:
        assert Path(os.path.realpath(parse_url(url).path)).is_relative_to(os.path.realpath(brand))


def test_a_source_in_a_folder_of_ours_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    url = str(tmp_path / "a.png")

    assert read_source(url, {}, 100, AllowList([str(tmp_path)])) == (b"picture", sha256_files([url])[url])
    with pytest.raises(SourceMissing):
        read_source(str(tmp_path), {}, 100, AllowList([str(tmp_path)]))
