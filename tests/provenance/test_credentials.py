"""Credentials that sources came with: kept at render, named at delivery, also when the source is gone."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import c2pa
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from PIL import Image
from support.masters import noise

import sdbatch
from sdbatch.errors import JobError
from sdbatch.packets import credentialed_type
from sdbatch.provenance.definition import definition, relation_of
from sdbatch.provenance.signing import FileSigner, SignFailed, archive_of, read_credentials
from sdbatch.provenance.signing_keys import PURPOSES, SigningKey, checked_key, make_chain
from sdbatch.provenance.source_type import COMPOSITE
from sdbatch.types import Source
from sdbatch.worker.source_credentials import CredentialArchives


@pytest.fixture(scope="module")
def chain() -> tuple[str, str, str]:
    return make_chain("ACME")


@pytest.fixture(scope="module")
def key(chain: tuple[str, str, str]) -> SigningKey:
    return checked_key(chain[0], chain[1], "", None, chain[2])


def _picture(kind: str, number: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64, number)).save(buffer, kind)
    return buffer.getvalue()


def _signed(key: SigningKey, data: bytes, media_type: str) -> bytes:
    claims = definition(
        title="photo",
        media_type=media_type,
        source_type="http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture",
        system="camera",
        system_version="",
        steps=(),
        fingerprint="",
    )
    return FileSigner(key).sign(data, media_type, claims).data


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("AVIF", "image/avif")],
)
def test_a_file_with_credentials_is_known_by_its_outline(key: SigningKey, kind: str, media_type: str) -> None:
    plain = _picture(kind)

    assert credentialed_type(plain) is None
    assert credentialed_type(_signed(key, plain, media_type)) == media_type
    assert credentialed_type(b"\0\0\0\1ftyp" + b"\0" * 30) is None


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_certificate_on_the_trust_list_signs_and_its_signatures_hold(purpose: str) -> None:
    certificates, private_key, root = make_chain("ACME", purpose=purpose)
    signed = _signed(checked_key(certificates, private_key, "", None, root), _picture("PNG"), "image/png")

    assert read_credentials(signed, "image/png", trust=root).state == "trusted"
    assert read_credentials(signed, "image/png").state == "valid"


@pytest.mark.parametrize(("purpose", "name"), [("1.3.6.1.5.5.7.3.1", "serverAuth"), ("1.2.3.4", "1.2.3.4")])
def test_a_certificate_for_something_else_is_refused_by_name(purpose: str, name: str) -> None:
    certificates, private_key, root = make_chain("ACME", purpose=purpose)

    with pytest.raises(JobError, match=f"is not for signing content: its extended key usage is {name}; taken are"):
        checked_key(certificates, private_key, "", None, root)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_key_in_the_forms_of_openssl_signs(chain: tuple[str, str, str], mark: str) -> None:
    key = load_pem_private_key(chain[1].encode(), None)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    assert "BEGIN EC PRIVATE KEY" in text
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    checked = checked_key(f"{mark}Bag Attributes\n{chain[0]}", f"{mark}{parameters}{text}", "", None, chain[2])

    assert (
        read_credentials(_signed(checked, _picture("PNG"), "image/png"), "image/png", trust=chain[2]).signer == "ACME"
    )


def test_what_a_source_is_to_an_output_follows_from_its_task() -> None:
    assert relation_of("image-to-image", "images", 0) == "parentOf"
    assert relation_of("video-to-video", "video", 0) == "parentOf"
    assert relation_of("inpainting", "images", 0) == "parentOf"
    assert relation_of("inpainting", "mask", 0) == "inputTo"
    assert relation_of("image-to-image", "images", 1) == "inputTo"
    assert relation_of("image-to-video", "images", 0) == "inputTo"
    assert relation_of("text-to-image", "control_image", 0) == "inputTo"


def test_credentials_that_cannot_be_read_are_noted_and_cost_nothing_else(key: SigningKey) -> None:
    data = _signed(key, _picture("PNG"), "image/png")
    place = data.find(b"caBX")
    broken = data[: place + 30] + b"\xff" * 60 + data[place + 90 :]
    source = Source(role="images", url="/a/photo.png", digest="sha256:" + "a" * 64)
    archives, notes = CredentialArchives().of([source], "image-to-image", lambda _: broken)

    assert archives == {}
    assert len(notes) == 1
    assert notes[0].startswith("/a/photo.png: its content credentials cannot be read and are not kept: ")


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """The URL of a server, and the paths that it was asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/credentials.c2pa", paths
        server.shutdown()


def test_an_authority_that_gives_no_time_stamp_is_named(chain: tuple[str, str, str], asked: tuple[str, Any]) -> None:
    key = checked_key(chain[0], chain[1], "", asked[0], chain[2])

    with pytest.raises(SignFailed, match=f"^the time stamp authority {asked[0]} gives no time stamp: .* = 501"):
        _signed(key, _picture("PNG"), "image/png")


def test_an_address_in_a_strangers_file_is_asked_for_nothing(asked: tuple[str, list[str]]) -> None:
    url, paths = asked
    said = f'<rdf:Description rdf:about="" xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="{url}"/>'
    rdf = f'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{said}</rdf:RDF>'
    buffer = io.BytesIO()
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{rdf}</x:xmpmeta>'.encode()
    Image.fromarray(noise(64, 64)).save(buffer, "JPEG", xmp=xmp)
    data = buffer.getvalue()
    with suppress(c2pa.C2paError):
        c2pa.Reader("image/jpeg", io.BytesIO(data))

    assert paths == ["/credentials.c2pa"]  # as the library does by itself
    assert read_credentials(data, "image/jpeg").state == "invalid"
    archive_of(data, "image/jpeg", "a" * 64, "parentOf", "photo")
    assert paths == ["/credentials.c2pa"]


@pytest.fixture(scope="module")
def rendered(key: SigningKey, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """Sources with credentials: whole, tampered, without."""
    folder = tmp_path_factory.mktemp("sources")
    whole = _signed(key, _picture("PNG", 1), "image/png")
    tampered = _signed(key, _picture("JPEG", 2), "image/jpeg")
    files = {
        "whole.png": whole,
        "tampered.jpg": tampered[:-40] + bytes([tampered[-40] ^ 1]) + tampered[-39:],
        "plain.png": _picture("PNG", 3),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder, files


def _manifest(file: Path, root: str) -> tuple[str, dict[str, Any]]:
    context = c2pa.Context(c2pa.Settings.from_dict({"trust": {"user_anchors": root}}))
    with c2pa.Reader("image/png", io.BytesIO(file.read_bytes()), context=context) as reader:
        said = json.loads(reader.json())
        return reader.get_validation_state(), said["manifests"][said["active_manifest"]]


def test_a_delivery_names_sources_by_the_credentials_they_came_with(
    rendered: tuple[Path, dict[str, bytes]],
    chain: tuple[str, str, str],
    write_manifest: Callable[..., str],
    job_of: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, files = rendered
    rows = [
        {"id": name.partition(".")[0], "prompt": "a fox", "images": str(folder / name), "seed": 1} for name in files
    ]
    defaults = {"task": "image-to-image", "num_inference_steps": 2}
    job = job_of(write_manifest(rows), defaults=defaults, output=str(tmp_path / "campaign"))
    job["sources"] = {"allow": [str(folder)]}
    sdbatch.run(job, in_process=True)
    archives = sorted(path.name for path in (tmp_path / "campaign/credentials").iterdir())
    for name in files:
        (folder / name).rename(folder / f"{name}.gone")
    monkeypatch.setenv("SDBATCH_SIGN_CERTIFICATE", chain[0])
    monkeypatch.setenv("SDBATCH_SIGN_KEY", chain[1])
    delivery = {
        "delivery": "d",
        "campaign": job["output"],
        "to": str(tmp_path / "out"),
        "formats": [{"name": "p", "width": 32, "height": 48, "type": "png", "bytes_max": 60_000}],
        "name": "{id}.{ext}",
        "processes": 1,
        "sign": {"required": True},
    }
    report = sdbatch.deliver(delivery)
    found = {name: _manifest(tmp_path / f"out/{name.partition('.')[0]}.png", chain[2]) for name in files}

    assert report.failed == {}
    assert len(archives) == 2
    assert all(len(name) == 64 + len(".c2pa") for name in archives)
    for name in ("whole.png", "tampered.jpg"):
        state, manifest = found[name]
        (ingredient,) = manifest["ingredients"]
        (assertion,) = [one for one in manifest["assertions"] if "actions" in one["label"]]
        actions = assertion["data"]["actions"]
        results = json.dumps(ingredient["validation_results"]["activeManifest"])
        mismatch = "assertion.dataHash.mismatch" in results
        assert state == "Trusted"
        assert (ingredient["title"], ingredient["relationship"]) == (name, "parentOf")
        assert mismatch is (name == "tampered.jpg")
        assert [action["action"] for action in actions] == [
            "c2pa.opened",
            "c2pa.edited",
            "c2pa.cropped",
            "c2pa.resized",
            "c2pa.transcoded",
        ]
        assert actions[1]["digitalSourceType"] == COMPOSITE
    state, manifest = found["plain.png"]
    assert (state, manifest.get("ingredients")) == ("Trusted", None)
    assert read_credentials((tmp_path / "out/plain.png").read_bytes(), "image/png").source_types == (COMPOSITE,)
    assert sdbatch.verify(job["output"]).is_good
