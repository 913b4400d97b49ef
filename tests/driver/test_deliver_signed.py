"""Signed deliveries: in six file types, read back, damaged, with keys that are wrong or far away."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import re
import ssl
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.masters import draw_campaign, noise, patches
from support.servers import BUCKET
from support.stores import Killed
from support.unsigned import unsigned

import sdbatch
from sdbatch.driver import deliver
from sdbatch.driver.delivery.plan import DeliverReport
from sdbatch.errors import JobError
from sdbatch.formats import CLIPS, PICTURES
from sdbatch.packets import packet_in
from sdbatch.provenance.signing import FileSigner, read_credentials
from sdbatch.provenance.signing_keys import make_chain
from sdbatch.provenance.source_type import GENERATED
from sdbatch.provenance.xmp import read_packet
from sdbatch.storage import open_campaign

TYPES = ("png", "jpg", "webp", "avif", "mp4", "webm")
MEDIA = {name: one.media_type for kinds in (PICTURES, CLIPS) for name, one in kinds.items()}
FORMATS: list[Any] = [{"name": suffix, "width": 128, "height": 96, "type": suffix} for suffix in TYPES]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a chain that holds for a year, its key and its root."""
    folder = tmp_path_factory.mktemp("keys")
    _write(folder, *make_chain("ACME"))
    return folder


def _write(folder: Path, chain: str, key: str, root: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in (("chain.pem", chain), ("leaf.pem", key), ("root.pem", root)):
        (folder / name).write_text(text)
    (folder / "chain.der").write_bytes(ssl.PEM_cert_to_DER_cert(root))


def _sign(keys: Path, **changes: Any) -> dict[str, Any]:
    own = {"certificate_file": "chain.pem", "key_file": "leaf.pem", "trust_file": "root.pem"}
    return {**{name: str(keys / file) for name, file in own.items()}, "required": True, **changes}


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signed") / "campaign"
    pixels = {"mug": noise(128, 96), "clip": np.stack([patches(128, 96, number) for number in range(4)])}
    draw_campaign(folder, [{"id": "mug"}, {"id": "clip"}], pixels)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDBATCH_CACHE", str(tmp_path / "cache"))
    for name in ("SDBATCH_SIGN_CERTIFICATE", "SDBATCH_SIGN_KEY"):
        monkeypatch.delenv(name, raising=False)


def _deliver(campaign: Path, to: Path, *, allow_code: bool = False, **changes: Any) -> DeliverReport:
    values = {"delivery": "spring", "campaign": str(campaign), "to": str(to), "processes": 1, "formats": FORMATS}
    return sdbatch.deliver({**values, "name": "{id}.{ext}", **changes}, allow_code=allow_code)


@pytest.fixture(scope="module")
def delivered(campaign: Path, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DeliverReport]:
    folder = tmp_path_factory.mktemp("delivered")
    return folder, _deliver(campaign, folder / "out", sign=_sign(keys))


def _file(folder: Path, suffix: str) -> Path:
    return folder / f"out/{'clip' if suffix in CLIPS else 'mug'}.{suffix}"


@pytest.mark.parametrize("suffix", TYPES)
def test_what_is_signed_is_read_back_and_without_its_block_is_what_it_was(
    delivered: tuple[Path, DeliverReport], keys: Path, suffix: str
) -> None:
    folder, report = delivered
    file = _file(folder, suffix)
    data, root = file.read_bytes(), (keys / "root.pem").read_text()
    beside = file.with_name(file.name + ".c2pa")
    sidecar = beside.read_bytes() if suffix == "webm" else None
    row = {row["name"]: row for row in pq.read_table(folder / "out/delivered.parquet").to_pylist()}[file.name]
    found = read_credentials(data, MEDIA[suffix], sidecar, root)

    assert (report.state, report.made, report.failed, report.unsigned) == ("done", 6, {}, {})
    assert (found.state, found.signer, found.faults) == ("trusted", "ACME", ())
    assert read_credentials(data, MEDIA[suffix], sidecar).state == "valid"
    assert found.source_types == (GENERATED,)
    assert not found.has_time_stamp
    assert row["content_sha256"] == hashlib.sha256(unsigned(data, suffix)).hexdigest()
    assert (row["sha256"], row["c2pa_label"]) == (hashlib.sha256(data).hexdigest(), found.label)
    assert beside.exists() == (suffix == "webm")
    assert len(row["fingerprint"]) == 16


@pytest.mark.s3
def test_signed_and_marked_files_reach_a_bucket_as_they_reach_a_folder(
    campaign: Path, keys: Path, s3_endpoint: str, tmp_path: Path
) -> None:
    url = f"s3://{BUCKET}/signed-{tmp_path.name}"
    words = {"creator": "ACME", "rights": "(c) ACME"}
    report = sdbatch.deliver(
        {
            "delivery": "spring",
            "campaign": str(campaign),
            "to": url,
            "processes": 1,
            "name": "{id}.{ext}",
            "formats": FORMATS,
            "sign": _sign(keys),
            "metadata": words,
        }
    )
    store = open_campaign(url, {})
    root = (keys / "root.pem").read_text()
    assert (report.made, report.unsigned, report.failed) == (6, {}, {})
    for suffix in TYPES:
        name = f"{'clip' if suffix in CLIPS else 'mug'}.{suffix}"
        sidecar = store.read(f"{name}.c2pa") if suffix == "webm" else None
        data = store.read(name)
        assert read_credentials(data, MEDIA[suffix], sidecar, root).state == "trusted"
        assert read_packet(packet_in(data))["dc:creator"] == ["ACME"]
    verified = sdbatch.verify_delivery(url, trust_file=keys / "root.pem")
    assert (verified.findings, verified.marked, verified.credentials) == ([], 6, {"trusted": 6})
    # A bit that flips in the bucket, and a credential that is taken away, are both found there.
    whole = store.read("mug.png")
    place = len(whole) * 2 // 3
    store.put("mug.png", whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    store.delete("clip.webm.c2pa")
    faults = sdbatch.verify_delivery(url).findings
    assert any(fault.startswith("mug.png: its content credentials do not hold") for fault in faults)
    assert "clip.webm.c2pa: is missing" in faults


@pytest.mark.parametrize("suffix", TYPES)
def test_one_bit_that_flips_is_seen(delivered: tuple[Path, DeliverReport], suffix: str) -> None:
    file = _file(delivered[0], suffix)
    data = bytearray(file.read_bytes())
    place = {"mp4": data.find(b"mdat") + 40, "avif": data.find(b"mdat") + 40}.get(suffix, len(data) * 2 // 3)
    data[place] ^= 1
    sidecar = file.with_name(file.name + ".c2pa").read_bytes() if suffix == "webm" else None
    found = read_credentials(bytes(data), MEDIA[suffix], sidecar)

    assert found.state == "invalid"
    assert any("mismatch" in fault for fault in found.faults), found.faults


def test_a_title_that_is_written_in_afterwards_is_seen(delivered: tuple[Path, DeliverReport]) -> None:
    data = _file(delivered[0], "jpg").read_bytes()
    comment = (
        b"\xff\xe1" + (2 + 29 + 40).to_bytes(2, "big") + b"http://ns.adobe.com/xap/1.0/\0" + b"<x:xmpmeta>".ljust(40)
    )

    assert read_credentials(data[:2] + comment + data[2:], "image/jpeg").state == "invalid"


def test_what_is_not_signed_says_so_and_a_sign_key_makes_it_anew(campaign: Path, keys: Path, tmp_path: Path) -> None:
    formats = FORMATS[:2]
    plain = _deliver(campaign, tmp_path / "out", formats=formats)
    data = (tmp_path / "out/mug.png").read_bytes()
    signed = _deliver(campaign, tmp_path / "out", formats=formats, sign=_sign(keys))
    again = _deliver(campaign, tmp_path / "out", formats=formats, sign=_sign(keys))

    assert read_credentials(data, "image/png").state == "none"
    assert [report.made for report in (plain, signed, again)] == [2, 2, 0]
    assert unsigned((tmp_path / "out/mug.png").read_bytes(), "png") == data


def test_what_stands_beside_a_file_goes_with_it(campaign: Path, keys: Path, tmp_path: Path) -> None:
    values = {"delivery": "d", "campaign": str(campaign), "to": str(tmp_path / "out"), "processes": 1}
    values |= {"name": "{id}_{format}.{ext}", "sign": _sign(keys)}
    sdbatch.deliver({**values, "formats": [FORMATS[5]]})
    before = sorted(file.name for file in (tmp_path / "out").glob("clip*"))
    report = sdbatch.deliver({**values, "formats": [FORMATS[4]]}, prune=True)

    assert before == ["clip_webm.webm", "clip_webm.webm.c2pa"]
    assert report.removed == ["clip_webm.webm"]
    assert [file.name for file in (tmp_path / "out").glob("clip*")] == ["clip_mp4.mp4"]


def test_what_stands_beside_a_file_goes_when_it_is_made_anew_without_a_signature(
    campaign: Path, keys: Path, tmp_path: Path
) -> None:
    _deliver(campaign, tmp_path / "out", formats=[FORMATS[5]], sign=_sign(keys))
    assert (tmp_path / "out/clip.webm.c2pa").exists()
    _deliver(campaign, tmp_path / "out", formats=[FORMATS[5]])

    assert [file.name for file in (tmp_path / "out").glob("clip*")] == ["clip.webm"]


def test_what_stands_beside_a_file_goes_although_the_delivery_was_killed_that_made_it_anew(
    campaign: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise Killed

    changes: dict[str, Any] = {"formats": [FORMATS[5]], "metadata": {"rights": "(c) of another length"}}
    _deliver(campaign, tmp_path / "out", formats=[FORMATS[5]], sign=_sign(keys))
    with monkeypatch.context() as patch:
        patch.setattr(deliver, "_write_down", killed)
        with pytest.raises(Killed):
            _deliver(campaign, tmp_path / "out", **changes)
    assert (tmp_path / "out/clip.webm.c2pa").exists()
    _deliver(campaign, tmp_path / "out", **changes)

    assert [file.name for file in (tmp_path / "out").glob("clip*")] == ["clip.webm"]


def test_what_stands_beside_a_file_is_named_when_it_is_damaged_and_made_again_when_it_is_gone(
    campaign: Path, keys: Path, tmp_path: Path
) -> None:
    def found() -> list[str]:
        return sdbatch.verify_delivery(tmp_path / "out", trust_file=keys / "root.pem").findings

    _deliver(campaign, tmp_path / "out", formats=[FORMATS[5]], sign=_sign(keys))
    beside = tmp_path / "out/clip.webm.c2pa"
    data = beside.read_bytes()
    padding = data.index(bytes(32))  # no signature is made over it
    beside.write_bytes(data[:padding] + b"\1" + data[padding + 1 :])
    assert found() == ["clip.webm.c2pa: is not the file that was delivered"]
    beside.unlink()
    assert found() == ["clip.webm.c2pa: is missing"]
    assert _deliver(campaign, tmp_path / "out", formats=[FORMATS[5]], sign=_sign(keys)).made == 1
    assert found() == []


def test_a_byte_cap_holds_after_signing(campaign: Path, keys: Path, tmp_path: Path) -> None:
    formats = [{**one, "bytes_max": 14_000} for one in FORMATS if one["name"] in {"jpg", "webp"}]
    report = _deliver(campaign, tmp_path / "out", formats=formats, sign=_sign(keys))

    assert report.failed == {}
    assert all(file.stat().st_size <= 14_000 for file in (tmp_path / "out").glob("mug.*"))
    assert read_credentials((tmp_path / "out/mug.jpg").read_bytes(), "image/jpeg").state == "valid"


def test_a_cap_that_a_signature_makes_too_small_is_told_with_the_delivery_s_own_bound(
    campaign: Path, keys: Path, tmp_path: Path
) -> None:
    formats = [{**one, "bytes_max": 5_000} for one in FORMATS if one["name"] in {"jpg", "png", "mp4"}]
    report = _deliver(campaign, tmp_path / "out", formats=formats, sign=_sign(keys))

    assert len(report.failed) == 3
    for fault in report.failed.values():
        found = re.search(r"^has (\d+) bytes.* and (\d+) for marks and signature, over 5000; ", fault)
        assert found is not None, fault
        assert int(found[1]) + int(found[2]) > 5_000


def _chain_of(folder: Path, days_ago: int, days: int) -> Path:
    _write(folder, *make_chain("ACME", datetime.now(UTC) - timedelta(days=days_ago), days))
    return folder


@pytest.mark.parametrize(
    ("days_ago", "days", "more", "said"),
    [
        (400, 365, {}, "the certificate expired on 20"),
        (-2, 365, {}, "the certificate is not valid before 20"),
        (340, 365, {}, "expires in 24 days, under 30, and without a time stamp"),
        (1, 365, {"timestamp_url": "http://127.0.0.1:9/"}, "authority http://127.0.0.1:9/ does not answer"),
        (1, 365, {"timestamp_url": "tsa.example.com"}, "begins with neither http:// nor https://"),
        (1, 365, {"key_file": "root.pem"}, "is no private key in PEM"),
        (1, 365, {"certificate_file": "leaf.pem"}, "the certificate holds no certificate in PEM"),
        (1, 365, {"key_file": "absent.pem"}, "absent.pem cannot be read: No such file"),
        (
            1,
            365,
            {"certificate_file": "chain.der"},
            "sign.certificate_file: .*chain.der is not text, and so no PEM; `op",
        ),
        (1, 365, {"key_file": None}, "SDBATCH_SIGN_KEY .or key_file. is not set, and sign.required is"),
        (1, 365, {"certificate_file": None}, "SDBATCH_SIGN_CERTIFICATE .or certificate_file. is not set"),
        (1, 365, {"call": "signers:boom", "key_file": None}, "call and version belong together"),
        (1, 365, {"call": "signers:boom", "version": "1", "key_file": None}, "is code; --allow-code"),
    ],
)
def test_a_key_that_is_wrong_is_refused_before_anything_is_made(
    campaign: Path, tmp_path: Path, days_ago: int, days: int, more: dict[str, Any], said: str
) -> None:
    keys = _chain_of(tmp_path / "keys", days_ago, days)
    named = {name: str(keys / value) if name.endswith("_file") and value else value for name, value in more.items()}
    with pytest.raises(JobError, match=said) as caught:
        _deliver(campaign, tmp_path / "out", sign=_sign(keys, **named))

    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_another_chains_key_is_refused(campaign: Path, keys: Path, tmp_path: Path) -> None:
    other = _chain_of(tmp_path / "other", 1, 365)
    with pytest.raises(JobError, match="does not belong to the first certificate"):
        _deliver(campaign, tmp_path / "out", sign=_sign(keys, key_file=str(other / "leaf.pem")))


def test_without_a_key_files_are_made_and_a_person_is_told(campaign: Path, tmp_path: Path) -> None:
    report = _deliver(campaign, tmp_path / "out", formats=FORMATS[:1], sign={})

    assert report.made == 1
    assert any("no file is signed" in line for line in report.warnings)


def test_key_and_certificate_come_from_the_environment(
    campaign: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDBATCH_SIGN_CERTIFICATE", (keys / "chain.pem").read_text())
    monkeypatch.setenv("SDBATCH_SIGN_KEY", str(keys / "leaf.pem"))
    report = _deliver(campaign, tmp_path / "out", formats=FORMATS[:1], sign={"required": True})

    assert read_credentials((tmp_path / "out/mug.png").read_bytes(), "image/png").state == "valid"
    assert any("without timestamp_url" in line for line in report.warnings)
    assert any("no root known here" in line for line in report.warnings)


@pytest.fixture
def signers(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Writes a module of functions that sign; returns settings that name one of them."""
    text = f"""
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

KEY = load_pem_private_key(Path({str(keys / "leaf.pem")!r}).read_bytes(), None)

def der(data):
    return KEY.sign(data, ec.ECDSA(SHA256()))

def raw(data):
    r, s = decode_dss_signature(der(data))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")

def wrong(data):
    return raw(data + b"!")

def boom(data):
    raise ConnectionError("the key service is away")

def text(data):
    return "signature"

calls = []

def once(data):
    calls.append(1)
    return raw(data) if len(calls) < 2 else boom(data)

number = 7
"""
    (tmp_path / "signers.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("signers", None)
    return lambda name: _sign(keys, key_file=None, call=f"signers:{name}", version="1")


@pytest.mark.parametrize("name", ["der", "raw"])
def test_a_function_signs_in_place_of_a_key(
    campaign: Path, tmp_path: Path, signers: Callable[[str], dict[str, Any]], name: str
) -> None:
    report = _deliver(campaign, tmp_path / "out", formats=FORMATS[:1], sign=signers(name), allow_code=True)

    assert report.made == 1
    assert read_credentials((tmp_path / "out/mug.png").read_bytes(), "image/png").state == "valid"


def test_a_byte_cap_holds_whatever_a_signature_takes(
    campaign: Path, tmp_path: Path, signers: Callable[[str], dict[str, Any]]
) -> None:
    formats = [{**one, "bytes_max": 21_000} for one in FORMATS if one["name"] in {"jpg", "webp", "avif", "mp4"}]
    report = _deliver(campaign, tmp_path / "out", formats=formats, sign=signers("der"), allow_code=True)

    assert report.failed == {}
    sizes = [file.stat().st_size for file in (tmp_path / "out").glob("mug.*")]
    assert len(sizes) == 3
    assert all(12_500 < size <= 21_000 for size in sizes)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("boom", "signers:boom raised ConnectionError: the key service is away"),
        ("text", "returned str, not bytes"),
        ("wrong", "sign: "),
        ("number", "is of type int, no function"),
        ("absent", "has no attribute 'absent'"),
    ],
)
def test_a_function_that_does_not_sign_is_told_of_by_its_name(
    campaign: Path, tmp_path: Path, signers: Callable[[str], dict[str, Any]], name: str, said: str
) -> None:
    with pytest.raises(JobError, match=said):
        _deliver(campaign, tmp_path / "out", formats=FORMATS[:1], sign=signers(name), allow_code=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("required", [True, False])
def test_a_key_service_that_goes_away_fails_files_only_where_marks_are_required(
    campaign: Path, tmp_path: Path, signers: Callable[[str], dict[str, Any]], required: bool
) -> None:
    settings = {**signers("once"), "required": required}
    report = _deliver(campaign, tmp_path / "out", formats=FORMATS[:1], sign=settings, allow_code=True)

    told = report.failed if required else report.unsigned
    assert "the key service is away" in told["mug.png"]
    assert (tmp_path / "out/mug.png").exists() is not required
    assert report.exit_code == (3 if required else 0)
    # The next delivery tries again: `once` answers the trial, and is then away for another time.
    sys.modules.pop("signers", None)
    again = _deliver(campaign, tmp_path / "out", formats=FORMATS[:1], sign=settings, allow_code=True)
    assert "the key service is away" in (again.failed if required else again.unsigned)["mug.png"]


def _sign_in_child(signer: FileSigner, data: bytes, queue: Any) -> None:
    from sdbatch.provenance.definition import definition

    claims = definition(
        title="a",
        media_type="image/png",
        source_type=GENERATED,
        system="s",
        system_version="",
        steps=(),
        fingerprint="",
    )
    signed = signer.sign(data, "image/png", claims)
    queue.put(read_credentials(signed.data, "image/png").state)


def test_a_signer_works_on_in_a_forked_process(keys: Path) -> None:
    from sdbatch.provenance.signing_keys import checked_key

    key = checked_key((keys / "chain.pem").read_text(), (keys / "leaf.pem").read_text(), "", None, "")
    signer = FileSigner(key)
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (9, 9, 90)).save(buffer, "PNG")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    _sign_in_child(signer, buffer.getvalue(), queue)
    child = context.Process(target=_sign_in_child, args=(signer, buffer.getvalue(), queue))
    child.start()
    states = [queue.get(timeout=120) for _ in range(2)]
    child.join(120)

    assert states == ["valid", "valid"]


def test_processes_of_their_own_sign_too(campaign: Path, keys: Path, tmp_path: Path) -> None:
    report = _deliver(campaign, tmp_path / "out", formats=[FORMATS[0], FORMATS[4]], sign=_sign(keys), processes=2)

    assert (report.made, report.failed) == (2, {})
    assert read_credentials((tmp_path / "out/clip.mp4").read_bytes(), "video/mp4").state == "valid"


def test_an_archive_takes_no_file_beside_another(campaign: Path, keys: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="an archive has no such place; deliver MP4"):
        _deliver(campaign, tmp_path / "out.zip", sign=_sign(keys))


def test_no_secret_is_shown(keys: Path) -> None:
    from sdbatch.provenance.signing_keys import checked_key

    key = (keys / "leaf.pem").read_text()
    checked = checked_key((keys / "chain.pem").read_text(), key, "", None, "")

    assert checked.private_key == key
    assert key.splitlines()[1] not in repr(checked)
