"""Links in a model folder: a hub's cache is made of them; what they lead to is looked into and digested."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sdbatch.checkpoints import describe
from sdbatch.errors import ModelError
from sdbatch.generate.load.copies import _copy_of
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "plain"
    make_tiny_random(path)
    return path


def _revision(folder: Path) -> str:
    return describe("m", Model(path=str(folder)), {}).revision


@pytest.fixture
def linked(folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The same model, one component of which is a link to a folder elsewhere."""
    model = shutil.copytree(folder, tmp_path / "model")
    elsewhere = Path(shutil.move(model / "text_encoder", tmp_path / "elsewhere"))
    (model / "text_encoder").symlink_to(elsewhere)
    return model, elsewhere


@pytest.mark.fault("S15", "a linked component folder whose config asks for code (auto_map)", "refused")
def test_code_behind_a_link_is_refused(linked: tuple[Path, Path]) -> None:
    model, elsewhere = linked
    config = json.loads((elsewhere / "config.json").read_text())
    (elsewhere / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Evil"}}))

    with pytest.raises(ModelError, match=r"text_encoder/config\.json asks for code"):
        describe("m", Model(path=str(model)), {})


@pytest.mark.fault("S15", "changed weights behind a linked component folder", "another identity")
def test_weights_behind_a_link_are_part_of_the_identity(folder: Path, linked: tuple[Path, Path]) -> None:
    model, elsewhere = linked
    before = _revision(model)
    weights = elsewhere / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)

    assert before == _revision(folder)
    assert _revision(model) != before


@pytest.mark.fault("S15", "a model in a hub's cache: every file a link to a blob", "read as the plain folder is")
def test_a_hubs_cache_is_read_through_its_links(folder: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    for number, file in enumerate(path for path in folder.rglob("*") if path.is_file()):
        shutil.copy(file, blobs / str(number))
        target = snapshot / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(blobs / str(number))
    (tmp_path / "link").symlink_to(snapshot)

    assert _revision(snapshot) == _revision(tmp_path / "link") == _revision(folder)


@pytest.mark.fault("S4", "two buckets, one stated revision", "two copies, named by URL and identity")
def test_copies_are_named_by_url_and_identity() -> None:
    revision = "a" * 40
    copies = {_copy_of(url, identity) for url in ("s3://one/m", "s3://two/m") for identity in (revision, "b" * 40)}

    assert len(copies) == 4
