"""`verify` of a delivery, `trace` of files that went out into the world, `audit`, `credentials selfsign`."""

from __future__ import annotations

import csv
import io
import json
import shutil
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.clips import ffmpeg
from support.masters import draw_campaign, key_of
from typer.testing import CliRunner

import sdbatch
from sdbatch.cli import app
from sdbatch.driver.trace import trace_file
from sdbatch.errors import JobError

RUNNER = CliRunner()
NUM_MASTERS = 40


def _cmd(*arguments: str, code: int = 0) -> str:
    done = RUNNER.invoke(app, list(arguments))
    assert done.exit_code == code, done.output
    return done.output


def _picture(number: int, side: int = 128) -> NDArray[np.uint8]:
    """Return image_HWC of noise whose amplitude falls with its frequency, as that of photographs does."""
    random = np.random.default_rng(number)
    frequencies = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    frequencies[0, 0] = np.inf
    spectrum_HWC = np.fft.rfft2(random.normal(size=(side, side, 3)), axes=(0, 1)) / frequencies[..., None]
    values_HWC = np.fft.irfft2(spectrum_HWC, s=(side, side), axes=(0, 1))
    image_HWC: NDArray[np.uint8] = (128 + 48 * values_HWC / values_HWC.std()).clip(0, 255).astype(np.uint8)
    return image_HWC


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDBATCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def _drawn(folder: Path, count: int, sign: dict[str, Any] | None, *, thumbnails: bool = False) -> None:
    """Draw a campaign of so many pictures, and deliver all of them as JPEG."""
    rows: list[dict[str, Any]] = [{"id": f"p{number:03d}", "x_license": "=ours"} for number in range(count)]
    pixels = {row["id"]: _picture(number) for number, row in enumerate(rows)}
    draw_campaign(folder / "campaign", rows, pixels, thumbnails=thumbnails)
    sdbatch.deliver(
        {
            "delivery": "d",
            "campaign": str(folder / "campaign"),
            "to": str(folder / "out"),
            "formats": [{"name": "j", "width": 128, "height": 128, "type": "jpg"}],
            "name": "{id}.{ext}",
            "processes": 1,
            "sign": sign,
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A delivered campaign, signed by a chain that the command made."""
    folder = tmp_path_factory.mktemp("provable")
    _cmd("credentials", "selfsign", str(folder / "keys"), "--name", "ACME")
    own = {"certificate_file": "certificate.pem", "key_file": "key.pem", "trust_file": "root.pem"}
    _drawn(folder, NUM_MASTERS, {**{name: str(folder / "keys" / file) for name, file in own.items()}, "required": True})
    return folder


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "out", tmp_path / "out"))


def test_the_command_makes_keys_that_are_their_owners_alone(made: Path) -> None:
    assert stat.S_IMODE((made / "keys/key.pem").stat().st_mode) == 0o600
    assert "is there already" in _cmd("credentials", "selfsign", str(made / "keys"), code=2)


def test_a_good_delivery_verifies(made: Path) -> None:
    said = json.loads(_cmd("verify", str(made / "out"), "--trust", str(made / "keys/root.pem"), "--json"))

    assert said["good"]
    assert (said["files"], said["marked"], said["credentials"]) == (NUM_MASTERS, NUM_MASTERS, {"trusted": NUM_MASTERS})
    assert (said["ledger_files"], said["ledger_lines"]) == (1, NUM_MASTERS + 1)
    assert f"{NUM_MASTERS} valid; ledger: 1 file, {NUM_MASTERS + 1} lines" in _cmd("verify", str(made / "out"))


def test_an_archive_verifies_and_its_files_are_traced(made: Path, tmp_path: Path) -> None:
    draw_campaign(tmp_path / "campaign", [{"id": "mug"}], {"mug": _picture(1)})
    formats = [{"name": "j", "width": 128, "height": 128, "type": "jpg"}]
    values = {"delivery": "d", "campaign": str(tmp_path / "campaign"), "to": str(tmp_path / "out.zip"), "processes": 1}
    sdbatch.deliver({**values, "formats": formats, "name": "{id}.{ext}"})
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        archive.extract("mug.jpg", tmp_path)

    assert "good: 1 file, 1 marked in XMP" in _cmd("verify", str(tmp_path / "out.zip"))
    assert trace_file(tmp_path / "mug.jpg", [str(tmp_path / "out.zip")]).by == "sha256"
    whole = (tmp_path / "out.zip").read_bytes()
    (tmp_path / "out.zip").write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    assert "mug.jpg: is not the file that was delivered (out.zip: " in _cmd("verify", str(tmp_path / "out.zip"), code=5)
    (tmp_path / "out.zip").write_bytes(b"no archive")
    assert "mug.jpg: is not the file that was delivered (out.zip: " in _cmd("verify", str(tmp_path / "out.zip"), code=5)
    to = str(tmp_path / "a.csv")
    said = _cmd("audit", str(tmp_path / "campaign"), "--to", to, "--delivered", str(tmp_path / "out.zip"))
    assert "1 delivered file; 1 unmarked; 1 missing or damaged" in said
    (tmp_path / "out.zip").unlink()
    assert "mug.jpg: is missing" in _cmd("verify", str(tmp_path / "out.zip"), code=5)


def _flip(out: Path) -> None:
    data = bytearray((out / "p003.jpg").read_bytes())
    data[-100] ^= 1
    (out / "p003.jpg").write_bytes(bytes(data))


def _strip(out: Path) -> None:
    with Image.open(out / "p003.jpg") as image:
        image.save(out / "p003.jpg", quality=95)


def _forge_ledger(out: Path) -> None:
    (file,) = (out / "deliveries").glob("*.jsonl")
    file.write_bytes(file.read_bytes().replace(b'"id": "p003"', b'"id": "p004"'))


def _drop_ledger(out: Path) -> None:
    (file,) = (out / "deliveries").glob("*.jsonl")
    file.unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            _flip,
            (
                "p003.jpg: is not the file that was delivered",
                "do not hold: assertion.dataHash.mismatch",
                "`sdbatch deliver` makes missing files anew; remove those first that are not",
            ),
        ),
        (_strip, ("p003.jpg: its XMP does not name the output", "p003.jpg: its content credentials are gone")),
        (lambda out: (out / "p003.jpg").unlink(), ("p003.jpg: is missing",)),
        (_forge_ledger, ("line 6 does not follow line 5",)),
        (_drop_ledger, ("p003.jpg: the ledger does not tell of it",)),
    ],
)
def test_what_was_changed_afterwards_is_told(out: Path, damage: Any, said: tuple[str, ...]) -> None:
    damage(out)
    told = _cmd("verify", str(out), code=5)

    assert all(one in told for one in said), told


def test_a_place_may_be_named_by_the_file_that_says_how_to_reach_it(made: Path, tmp_path: Path) -> None:
    values = {"campaign": str(made / "campaign"), "to": str(made / "out"), "formats": ["x-post"]}
    (tmp_path / "spring.yaml").write_text(json.dumps(values))
    (tmp_path / "other.yaml").write_text(json.dumps({"campaign": "a"}))

    assert f"{NUM_MASTERS} valid; ledger: 1 file, {NUM_MASTERS + 1} lines" in _cmd(
        "verify", str(tmp_path / "spring.yaml")
    )
    assert trace_file(made / "out/p001.jpg", [str(tmp_path / "spring.yaml")]).by == "sha256"
    assert "other.yaml" in _cmd("verify", str(tmp_path / "other.yaml"), code=2)
    assert "absent.yaml" in _cmd("verify", str(tmp_path / "absent.yaml"), code=2)


def test_neither_campaign_nor_delivery_is_told(made: Path, tmp_path: Path) -> None:
    assert f"good: {NUM_MASTERS} assets committed" in _cmd("verify", str(made / "campaign"))
    assert "no run there" in _cmd("verify", str(tmp_path), code=2)
    assert "absent.pem: cannot be read" in _cmd("verify", str(made / "out"), "--trust", "absent.pem", code=2)


def test_a_file_is_traced_by_its_bytes_and_by_the_key_inside_it(made: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes((made / "out/p007.jpg").read_bytes())
    by_bytes = trace_file(tmp_path / "copy", [str(made / "out")])
    by_key = trace_file(tmp_path / "copy", [str(made / "campaign")])
    master = trace_file(next((made / "campaign/assets").glob("p009-*")), [str(made / "campaign")])

    assert (by_bytes.by, [one.values["id"] for one in by_bytes.candidates]) == ("sha256", ["p007"])
    assert (by_key.by, [one.values["id"] for one in by_key.candidates]) == ("key", ["p007"])
    assert by_key.candidates[0].values["request_key"] == key_of("p007")
    assert by_key.candidates[0].values["prompt"] == "drawn"
    assert (master.by, master.candidates[0].values["id"]) == ("sha256", "p009")


def _reencoded(data: bytes) -> bytes:
    """Return a JPEG at quality 60 and half the size, without what stood in it."""
    with Image.open(io.BytesIO(data)) as image:
        half = image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    half.save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.long)])
def test_files_that_lost_their_marks_are_found_by_what_they_show_and_strangers_are_not(
    tmp_path: Path, count: int
) -> None:
    _drawn(tmp_path, count, None)
    file, found, strangers = tmp_path / "seen.jpg", 0, 0
    for number in range(count):
        file.write_bytes(_reencoded((tmp_path / f"out/p{number:03d}.jpg").read_bytes()))
        report = trace_file(file, [str(tmp_path / "out")])
        found += f"p{number:03d}" in [one.values["id"] for one in report.candidates]
        assert report.by in {"fingerprint", "nothing"}
        buffer = io.BytesIO()
        Image.fromarray(_picture(10_000 + number)).save(buffer, "JPEG")
        file.write_bytes(buffer.getvalue())
        strangers += trace_file(file, [str(tmp_path / "out")]).by != "nothing"

    assert found >= 0.95 * count
    assert strangers == 0


def test_a_clip_is_found_by_what_it_shows_in_any_container(tmp_path: Path) -> None:
    rows = [{"id": name} for name in ("wave", "dune")]
    pixels = {row["id"]: np.repeat(_picture(place)[None], 6, axis=0) for place, row in enumerate(rows)}
    draw_campaign(tmp_path / "campaign", rows, pixels)
    formats = [{"name": "m", "width": 128, "height": 128, "type": "mp4"}]
    values = {"delivery": "d", "campaign": str(tmp_path / "campaign"), "to": str(tmp_path / "out"), "processes": 1}
    sdbatch.deliver({**values, "formats": formats, "name": "{id}.{ext}"})
    for suffix in ("mov", "ts", "avi", "mkv"):
        seen = tmp_path / f"seen.{suffix}"
        ffmpeg("-i", str(tmp_path / "out/dune.mp4"), "-map_metadata", "-1", "-c:v", "mpeg4", str(seen))
        report = trace_file(seen, [str(tmp_path / "out")])
        assert (report.by, report.candidates[0].values["id"]) == ("fingerprint", "dune"), suffix


def test_a_campaign_without_a_delivery_is_searched_by_its_masters_alone(made: Path, tmp_path: Path) -> None:
    file = tmp_path / "seen.jpg"
    file.write_bytes(_reencoded((made / "out/p011.jpg").read_bytes()))

    assert "nothing like it is there" in _cmd("trace", str(file), str(made / "campaign"), code=5)
    assert "found by what it shows; it is one of these" in _cmd("trace", str(file), str(made / "out"))


def test_a_file_of_an_output_that_no_row_wants_any_more_is_traced_and_audited(tmp_path: Path) -> None:
    _drawn(tmp_path, 4, None, thumbnails=True)
    campaign, old = str(tmp_path / "campaign"), tmp_path / "out/p002.jpg"
    sdbatch.review(campaign, approve=["p002"], by="jane")
    master = next(tmp_path.glob("campaign/assets/p002-*"))
    edited: dict[str, Any] = {"keys": {"p002": "ab" * 32}, "thumbnails": True}
    draw_campaign(tmp_path / "campaign", [{"id": "p001"}, {"id": "p002"}], {"p002": _picture(90)}, **edited)
    seen = tmp_path / "seen.jpg"
    seen.write_bytes(_reencoded(old.read_bytes()))
    found = [trace_file(file, [campaign]) for file in (old, master, seen, tmp_path / "out/p001.jpg")]
    told = [[(one.values["id"], one.values.get("status")) for one in report.candidates] for report in found]
    sdbatch.audit(campaign, tmp_path / "a.csv", delivered=[str(tmp_path / "out")])
    with (tmp_path / "a.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["place"].endswith("out")]

    assert [report.by for report in found] == ["key", "sha256", "fingerprint", "key"]
    assert told == [[("p002", "superseded")]] * 3 + [[("p001", None)]]
    assert [report.candidates[0].values.get("verdict") for report in found] == ["approved"] * 3 + [None]
    assert [line["file"] for line in lines] == [f"p{number:03d}.jpg" for number in range(4)]
    assert (lines[2]["approver"], lines[2]["x_license"], lines[2]["prompt"]) == ("jane", "'=ours", "drawn")
    assert lines[2]["request_key"] != "ab" * 32


@pytest.mark.parametrize("name", ["absent.jpg", "text.jpg"])
def test_a_file_that_is_no_picture_is_told(made: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    if name == "absent.jpg":
        with pytest.raises(JobError, match=r"absent.jpg: cannot be read: No such file"):
            trace_file(tmp_path / name, [str(made / "out")])
    else:
        assert trace_file(tmp_path / name, [str(made / "out")]).by == "nothing"


def test_an_audit_has_a_line_for_each_file(made: Path, tmp_path: Path) -> None:
    said = _cmd("audit", str(made / "campaign"), "--to", str(tmp_path / "a.csv"), "--delivered", str(made / "out"))
    with (tmp_path / "a.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))

    assert f"{NUM_MASTERS} masters, {NUM_MASTERS} delivered files; {NUM_MASTERS} unmarked" in said
    assert len(lines) == 2 * NUM_MASTERS
    assert {line["x_license"] for line in lines} == {"'=ours"}
    assert [line["mark"] for line in lines] == ["none"] * NUM_MASTERS + ["trainedAlgorithmicMedia"] * NUM_MASTERS
    assert {line["signer"] for line in lines[NUM_MASTERS:]} == {"ACME"}
    assert all(line["signature"].startswith("urn:c2pa:") for line in lines[NUM_MASTERS:])
    assert lines[7]["prompt"] == "drawn"
