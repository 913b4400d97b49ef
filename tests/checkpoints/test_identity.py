"""What names the content of a model: digests, pins, revisions that are believed and those that are compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.revisions import PINNED
from support.weights import weights, with_length

from sdbatch import api
from sdbatch.checkpoints import (
    BUILTINS,
    SHIPPED,
    component_files,
    content_digest,
    describe,
    describe_lora,
    identity,
    is_content_digest,
    refuse_shared_revisions,
)
from sdbatch.checkpoints.headers import HEADER_BYTES_MAX, Header, read_headers
from sdbatch.checkpoints.parameters import num_parameters, stored_dtype
from sdbatch.errors import JobError, ModelError, StoreRefused
from sdbatch.job import Component, Lora, Model, is_fixed
from sdbatch.storage import Store, open_store

TINY = SHIPPED["tiny-sd"]
WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a model folder of one's own."""
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def _upload(folder: Path, url: str) -> str:
    store = open_store(url, {})
    for file in folder.rglob("*"):
        if file.is_file():
            store.put(str(file.relative_to(folder)), file.read_bytes())
    return url


def _other_weights(folder: Path) -> None:
    """Change one byte of the denoiser's weights, as another training run would change them all."""
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / WEIGHTS).write_bytes(data)


# --- one function ----------------------------------------------------------------------------------------------------


def test_a_commit_stands_for_what_is_read_of_it() -> None:
    commit, digest = "a" * 40, "b" * 64
    parts: list[dict[str, Any]] = [{}, {"file": "x"}, {"variant": "x"}, {"subfolder": "x"}, {"file": "y"}]

    assert identity(commit) == commit
    assert identity(commit, file=None, variant="", subfolder=None) == commit
    assert len({identity(commit, **part) for part in parts}) == len(parts)
    assert all(is_fixed(identity(commit, **part)) for part in parts)
    assert {identity(digest, **part) for part in parts} == {digest}


@pytest.mark.parametrize("revision", ["main", "v1", "refs/pr/1", "9" * 39, "g" * 40, "9" * 65, ""])
def test_a_revision_that_can_move_is_refused_with_the_remedy(revision: str) -> None:
    job = {"manifest": "m", "output": "o", "models": {"a": {"path": "/a", "revision": revision}}}

    with pytest.raises(JobError) as caught:
        api.load_job(job)
    assert f"models.a.revision: {revision!r} is a name that can move" in str(caught.value)
    assert "`sdbatch models pin JOB` prints the digest to paste" in str(caught.value)


def test_two_folders_with_the_same_old_style_revision_are_both_refused_by_name() -> None:
    models = {name: {"path": f"/{name}", "revision": "v1"} for name in ("base", "tuned")}

    with pytest.raises(JobError) as caught:
        api.load_job({"manifest": "m", "output": "o", "models": models})
    assert "models.base.revision: 'v1'" in str(caught.value)
    assert "models.tuned.revision: 'v1'" in str(caught.value)


def test_a_commit_is_taken_in_either_case() -> None:
    assert Model(path="/a", revision="AB" * 20).revision == "ab" * 20


def test_every_builtin_has_a_content_identity() -> None:
    assert all(is_content_digest(builtin.identity) and is_fixed(builtin.identity) for builtin in BUILTINS.values())
    with pytest.raises(ModelError, match=r"models\.a: revision 0+ is not that of builtin:tiny-random"):
        describe("a", Model(path="builtin:tiny-random", revision="0" * 64), {})


# --- what is digested ------------------------------------------------------------------------------------------------


def test_the_digest_follows_paths_and_contents(folder: Path) -> None:
    def digest(place: Path) -> str:
        store = open_store(str(place), {})
        return content_digest(store, component_files(store, json.loads(store.read("model_index.json"))))

    before = digest(folder)
    assert before == digest(TINY)
    _other_weights(folder)
    changed = digest(folder)
    (folder / "unet").rename(folder / "unet2")

    assert len({before, changed, digest(folder)}) == 3


def test_links_are_followed_to_what_they_lead_to(folder: Path, tmp_path: Path) -> None:
    plain = describe("a", Model(path=str(folder)), {}).revision
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (folder / WEIGHTS).rename(blobs / "one")
    (folder / WEIGHTS).symlink_to(blobs / "one")  # a hub's cache links files,
    (folder / "vae").rename(tmp_path / "shared")
    (folder / "vae").symlink_to(tmp_path / "shared")  # and people link a component that models share
    assert describe("a", Model(path=str(folder)), {}).revision == plain

    config = tmp_path / "shared" / "config.json"
    config.write_text(config.read_text() + " ")
    through_folder = describe("a", Model(path=str(folder)), {}).revision
    data = bytearray((blobs / "one").read_bytes())
    data[-1] ^= 1
    (blobs / "two").write_bytes(data)
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(blobs / "two")

    assert len({plain, through_folder, describe("a", Model(path=str(folder)), {}).revision}) == 3


def test_links_that_lead_nowhere_or_in_circles_are_refused_by_name(folder: Path) -> None:
    (folder / "unet" / "again").symlink_to(folder)
    with pytest.raises(StoreRefused, match="the link unet/again leads back"):
        describe("a", Model(path=str(folder)), {})
    (folder / "unet" / "again").unlink()
    (folder / "unet" / "more.safetensors").symlink_to(folder / "absent")
    with pytest.raises(StoreRefused, match=r"the link unet/more\.safetensors leads nowhere"):
        describe("a", Model(path=str(folder)), {})


# --- parameters ------------------------------------------------------------------------------------------------------


def test_parameters_are_counted_from_headers_whatever_type_they_are_stored_in(folder: Path) -> None:
    stored = describe("a", Model(path=str(folder)), {}).parameters
    assert stored == describe("a", Model(path=str(folder), dtype="bfloat16"), {}).parameters
    header = (folder / WEIGHTS).read_bytes()
    tensors = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])
    assert {tensor["dtype"] for name, tensor in tensors.items() if name != "__metadata__"} == {"F16"}
    assert stored == pytest.approx((folder / WEIGHTS).stat().st_size / 2, rel=0.02)


def _headers(store: Store) -> list[Header]:
    headers = read_headers(store, store.list()).values()
    for header in headers:
        if isinstance(header, ModelError):
            raise header
    return [header for header in headers if isinstance(header, Header)]


def test_a_tensor_in_two_files_counts_once(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), {})
    store.put("unet/a.safetensors", weights({"w": [3, 5], "s": []}))
    store.put("unet/b.safetensors", weights({"w": [3, 5], "s": []}, spaces=1 << 20))  # longer than is read first

    assert num_parameters(_headers(store)) == 16


@pytest.mark.parametrize(("dtype", "expected"), [("F32", "float32"), ("BF16", "bfloat16"), ("F8_E4M3", "bfloat16")])
def test_the_numbers_of_most_bytes_are_the_modules(tmp_path: Path, dtype: str, expected: str) -> None:
    store = open_store(str(tmp_path), {})
    store.put("a.safetensors", weights({"small": [3]}, "F16"))
    store.put("b.safetensors", weights({"w": [3, 5]}, dtype))

    assert stored_dtype(_headers(store)) == expected


@pytest.mark.parametrize(
    "data",
    [b"", b"abc", with_length(b"{}", HEADER_BYTES_MAX), with_length(b"{"), with_length(b"[]"),
     with_length(b'{"w": {"dtype": "F16", "shape": "all", "data_offsets": [0, 0]}}'),
     with_length(b'{"w": {"dtype": "F16", "shape": [-1], "data_offsets": [0, 0]}}'),
     with_length(b'{"w": {"dtype": "F16", "shape": [1]}}')],
)  # fmt: skip
def test_what_is_no_safetensors_file_is_named(tmp_path: Path, data: bytes) -> None:
    store = open_store(str(tmp_path), {})
    store.put("unet/w.safetensors", data)

    with pytest.raises(ModelError, match=r"unet/w\.safetensors: is not a safetensors file"):
        _headers(store)


# --- pins ------------------------------------------------------------------------------------------------------------


def _job(tmp_path: Path, **models: Any) -> dict[str, Any]:
    return {"manifest": "m", "output": str(tmp_path / "out"), "models": models}


def test_a_pin_is_what_a_local_folder_is_known_by_and_stands_for_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "config.json").write_text(json.dumps({"_class_name": "ControlNetModel"}))
    (tmp_path / "control" / "diffusion_pytorch_model.safetensors").write_bytes(weights({"w": [1]}))
    (tmp_path / "ink.safetensors").write_bytes(weights({"ink.lora_down.weight": [1]}))
    entry = {"path": str(folder), "revision": "v1", "controlnet": str(tmp_path / "control")}
    lora = Lora(path=str(tmp_path), base="Stable Diffusion 1.x/2.x", weight_name="ink.safetensors")
    job = {**_job(tmp_path, sd=entry), "loras": {"ink": lora.model_dump()}}

    model, control, ink = api.pin_models(job)
    assert (model.place, control.place, ink.place) == ("models.sd", "models.sd.controlnet", "loras.ink")
    plain = describe("sd", Model(path=str(folder), controlnet=Component(path=str(tmp_path / "control"))), {})
    stated = Component(path=str(tmp_path / "control"), revision=control.revision)
    pinned = describe("sd", Model(path=str(folder), revision=model.revision, controlnet=stated), {})
    assert (pinned.base_revision, pinned.component_revisions) == (model.revision, {"controlnet": control.revision})
    assert pinned.revision == plain.revision
    assert describe_lora("ink", lora, {}).revision == ink.revision
    assert describe_lora("ink", lora.model_copy(update={"revision": ink.revision}), {}).revision == ink.revision


def test_two_loras_of_one_commit_are_two_identities(tmp_path: Path) -> None:
    revisions = []
    for name in ("ink", "wool"):
        (tmp_path / f"{name}.safetensors").write_bytes(weights({f"{name}.lora_down.weight": [1]}))
        lora = Lora(path=str(tmp_path), base="Stable Diffusion XL", weight_name=f"{name}.safetensors", revision=PINNED)
        revisions.append(describe_lora(name, lora, {}).revision)

    assert len({PINNED, *revisions}) == 3


@pytest.mark.s3
def test_a_bucket_is_unpinned_until_it_states_the_digest_its_folder_has(s3_endpoint: str, tmp_path: Path) -> None:
    url = _upload(TINY, "s3://campaigns/pins/tiny")
    (local,) = api.pin_models(_job(tmp_path, sd={"path": str(TINY)}))
    (remote,) = api.pin_models(_job(tmp_path, sd={"path": url}))

    assert local.revision == remote.revision == describe("sd", Model(path=str(TINY)), {}).revision
    assert not describe("sd", Model(path=url), {}).is_pinned
    assert describe("sd", Model(path=url, revision=remote.revision), {}).is_pinned
    assert describe("sd", Model(path=str(TINY)), {}).is_pinned
    assert describe("sd", Model(path=url), {}).parameters == describe("sd", Model(path=str(TINY)), {}).parameters


@pytest.mark.s3
def test_plan_tells_what_is_unpinned(
    s3_endpoint: str, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    url = _upload(TINY, "s3://campaigns/pins/plan")
    job = job_of(write_manifest([{"id": "a", "prompt": "x"}]), models={"tiny": {"path": url, "batch_size": 1}})
    (pin,) = api.pin_models(job)

    assert api.plan(job).unpinned == ["models.tiny"]
    assert api.plan(job, overrides=[f"models.tiny.revision={pin.revision}"]).unpinned == []


def test_pins_name_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"models\.a: .*no model_index\.json"):
        api.pin_models(_job(tmp_path, a={"path": str(tmp_path)}))
    with pytest.raises(ModelError, match=r"models\.a: builtin:huge is not a builtin"):
        api.pin_models(_job(tmp_path, a={"path": "builtin:huge"}))


# --- two folders, one revision ---------------------------------------------------------------------------------------


def test_two_folders_of_one_commit_have_to_be_alike(folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))

    def look(**changes: Any) -> None:
        refuse_shared_revisions(
            [
                describe("base", Model(path=str(folder), revision=PINNED), {}),
                describe("tuned", Model(**{"path": str(other), "revision": PINNED, **changes}), {}),
            ],
            {},
        )

    look()
    _other_weights(other)
    with pytest.raises(ModelError) as caught:
        look()
    assert "models.base and models.tuned state one revision" in str(caught.value)
    assert f"differ in {WEIGHTS}" in str(caught.value)
    look(revision="8" * 40)
    look(revision=None)


def test_a_row_that_moves_to_a_model_with_other_weights_is_rendered_again_by_them(
    folder: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    other = Path(shutil.copytree(folder, folder.with_name("other")))
    config = other / "scheduler" / "scheduler_config.json"
    values = json.loads(config.read_text())
    values["beta_end"] *= 0.5
    config.write_text(json.dumps(values))
    models = {name: {"path": str(path), "batch_size": 1} for name, path in (("one", folder), ("two", other))}

    def made(model: str) -> dict[str, Any]:
        row = {"id": "a", "prompt": "a beach", "seed": 3, "model": model, "num_inference_steps": 2}
        job = job_of(write_manifest([row]), models=models, defaults={"task": "text-to-image"})
        result = api.run(job, in_process=True)
        return {**api.metadata(result.output).to_pylist()[0], "rendered": result.counts["rows_generated"]}

    one, two, one_again = made("one"), made("two"), made("one")
    assert one["request_key"] != two["request_key"]
    assert one["sha256"] != two["sha256"]
    assert two["model_revision"] == describe("two", Model(path=str(other)), {}).revision
    assert one_again["sha256"] == one["sha256"]
    assert (one["rendered"], two["rendered"], one_again["rendered"]) == (1, 1, 0)
