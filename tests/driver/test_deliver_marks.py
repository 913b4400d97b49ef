"""What delivered files say of themselves: for other programs, in all six file types, whatever master they come from."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageFont
from support.exiftool import exiftool
from support.masters import draw_campaign, key_of, noise, patches

import sdbatch
from sdbatch.deliver.label import label_image
from sdbatch.deliver.marking import Label, Metadata
from sdbatch.driver.delivery.marks import packet_for, words_of
from sdbatch.driver.delivery.plan import DeliverReport
from sdbatch.encode.asset import encode_asset
from sdbatch.errors import JobError
from sdbatch.job import Encode
from sdbatch.packets import packet_in
from sdbatch.provenance.source_type import COMPOSITE, GENERATED
from sdbatch.provenance.xmp import Properties, packet_of, read_packet

STILL_TYPES, CLIP_TYPES = ("png", "jpg", "webp", "avif"), ("mp4", "webm")
FORMATS: list[Any] = [
    {"name": suffix, "width": 128, "height": 96, "type": suffix} for suffix in (*STILL_TYPES, *CLIP_TYPES)
]
ROWS: list[dict[str, Any]] = [
    {"id": "mug", "x_product": "Mug", "x_alt": "A mug & <spoon>", "x_synthetic_performer": "true"},
    {"id": "clip", "x_product": "Clip", "x_alt": None, "x_synthetic_performer": None},
]
SAID = {
    "creator": "ACME",
    "credit": "ACME / sdbatch",
    "rights": "© 2026 ACME",
    "title": "{x_product} in red",
    "alt_text": "{x_alt}",
    "keywords": ["spring", "{x_product}"],
}


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDBATCH_CACHE", str(tmp_path / "cache"))
    pixels = {"mug": noise(128, 96), "clip": np.stack([patches(128, 96, number) for number in range(4)])}
    draw_campaign(tmp_path / "campaign", ROWS, pixels)
    return tmp_path / "campaign"


def _deliver(campaign: Path, **changes: Any) -> DeliverReport:
    values = {"delivery": "spring", "campaign": str(campaign), "to": str(campaign.parent / "out"), "processes": 1}
    return sdbatch.deliver({**values, "formats": FORMATS, "name": "{id}.{ext}", **changes})


def test_every_file_says_what_it_is_and_whose(campaign: Path, tmp_path: Path) -> None:
    report = _deliver(campaign, metadata=SAID)
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (tmp_path / "out").glob("*.*")}
    shutil.rmtree(tmp_path / "out")
    _deliver(campaign, metadata=SAID)

    assert (report.state, report.made) == ("done", 6)
    assert [line for line in report.warnings if "metadata" in line] == [
        "metadata.alt_text: the files of 1 rows have none, because a column of it is null: clip"
    ]
    for suffix in STILL_TYPES:
        file = tmp_path / f"out/mug.{suffix}"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == sums[file.name]
        found = exiftool(file)
        assert found["XMP-iptcExt:DigitalSourceType"] == GENERATED
        assert found["XMP-dc:Creator"] == "ACME"
        assert found["XMP-photoshop:Credit"] == "ACME / sdbatch"
        assert found["XMP-dc:Rights"] == "© 2026 ACME"
        assert found["XMP-dc:Title"] == "Mug in red"
        assert found["XMP-iptcCore:AltTextAccessibility"] == "A mug & <spoon>"
        assert found["XMP-dc:Subject"] == ["spring", "Mug"]
        assert found["XMP-xmpMM:DocumentID"] == f"urn:sdbatch:{key_of('mug')}:0"
        assert read_packet(packet_in(file.read_bytes()))["sdbatch:SyntheticPerformer"] == "True"
    mp4 = exiftool(tmp_path / "out/clip.mp4")
    assert (mp4["XMP-dc:Title"], mp4["XMP-iptcExt:DigitalSourceType"]) == ("Clip in red", GENERATED)
    with av.open(str(tmp_path / "out/clip.webm")) as opened:
        assert opened.metadata["DIGITAL_SOURCE_TYPE"] == GENERATED
        assert read_packet(opened.metadata["XMP"].encode())["dc:title"] == "Clip in red"


def test_prompt_and_recipe_stay_behind_unless_they_are_asked_for(campaign: Path, tmp_path: Path) -> None:
    _deliver(campaign)
    without = {file.name: file.read_bytes() for file in (tmp_path / "out").glob("*.*")}
    _deliver(campaign, to=str(tmp_path / "told"), metadata={"prompt": True, "prompt_writer": "Jane"})

    assert not any(b"drawn" in without[f"{name}"] for name in without if not name.startswith("delivered"))
    for file in (tmp_path / "told").glob("*.*"):
        if not file.name.startswith("delivered"):
            words = read_packet(packet_in(file.read_bytes()))
            assert words["Iptc4xmpExt:AIPromptInformation"] == "drawn"
            assert words["Iptc4xmpExt:AIPromptWriterName"] == "Jane"


def test_changed_rights_make_the_files_anew_and_nothing_else_does(campaign: Path) -> None:
    formats = FORMATS[:2]
    first = _deliver(campaign, formats=formats, metadata={"rights": "2026"})
    same = _deliver(campaign, formats=formats, metadata={"rights": "2026"})
    other = _deliver(campaign, formats=formats, metadata={"rights": "2027"})
    labelled = _deliver(campaign, formats=formats, metadata={"rights": "2027"}, label={"text": "AI"})

    assert [report.made for report in (first, same, other, labelled)] == [2, 0, 2, 2]


def test_what_a_master_says_of_itself_goes_with_its_files_and_an_older_one_is_told_by_its_task() -> None:
    words = words_of(Metadata(), {"id": "a", "request_key": key_of("a"), "n": 0, "task": "image-to-image"})

    def master(said: str | None) -> bytes:
        packet = None if said is None else packet_of(Properties(source_type=said, system="s", system_version="v"), "")
        return encode_asset(
            noise(64, 64)[None], Encode(), fps=None, sound=None, request_key="a" * 64, n=0, recipe="{}", xmp=packet
        ).data

    for said, expected in ((None, COMPOSITE), (GENERATED, GENERATED), (COMPOSITE, COMPOSITE), ("http://b", COMPOSITE)):
        assert packet_for(words, master(said), "jpg").source_type == expected


def test_a_byte_cap_holds_with_a_long_packet(campaign: Path, tmp_path: Path) -> None:
    said = {"rights": "r" * 4_000}
    formats = [{**one, "bytes_max": 9_000} for one in FORMATS if one["name"] in {"jpg", "webp", "mp4", "webm"}]
    report = _deliver(campaign, formats=formats, metadata=said, quality={"least": 5, "most": 95})

    assert report.failed == {}
    for one in formats:
        (file,) = (tmp_path / "out").glob(f"*.{one['type']}")
        assert 4_000 < file.stat().st_size <= 9_000
        assert read_packet(packet_in(file.read_bytes()))["dc:rights"] == "r" * 4_000


def test_a_labels_font_counts_by_its_content(campaign: Path, tmp_path: Path) -> None:
    font, same, other = (tmp_path / name for name in ("a.ttf", "b.ttf", "c.ttf"))
    letters = ImageFont.load_default(32)
    assert isinstance(letters, ImageFont.FreeTypeFont)
    for file in (font, same, other):
        file.write_bytes(letters.font_bytes)
    other.write_bytes(letters.font_bytes + b"changed")
    formats = [one for one in FORMATS if one["name"] in {"png", "mp4"}]
    reports = [
        _deliver(campaign, formats=formats, label={"text": "AI", **named})
        for named in ({}, *({"font": str(file)} for file in (font, same, other)), {})
    ]

    assert [report.made for report in reports] == [2, 2, 0, 2, 2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metadata": {"title": "{x_prodct}"}}, "did you mean x_product"),
        ({"metadata": {"title": "{x_product.upper}"}}, "is not the name of a column"),
        ({"metadata": {"title": "{x_product!r}"}}, "is not the name of a column"),
        ({"metadata": {"title": "{"}}, "is no text with columns in braces"),
        ({"metadata": {"tilte": "a"}}, "did you mean title"),
        ({"metadata": {"rights": "a" * 8_001}}, "8001 characters are over 8000"),
        ({"label": {"text": "生成"}}, "which the label's font does not have"),
        ({"label": {"text": "  "}}, "label: text: '  ' is not one line of words"),
        ({"label": {"text": "made\nby AI"}}, "is not one line of words"),
        ({"label": {"text": "{x_label}"}}, "a label is the same on every file, and takes no columns"),
        ({"label": {"text": "AI", "height": 0.5}}, "less than or equal to 0.25"),
        ({"label": {"text": "AI", "font": "nowhere.ttf"}}, "'nowhere.ttf' is not a file of this machine"),
    ],
)
def test_a_wrong_word_is_refused_before_anything_is_made(
    campaign: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError, match=said.replace("(", r"\(")):
        _deliver(campaign, **changes)
    assert not (tmp_path / "out").exists()


def test_a_performer_is_yes_or_no() -> None:
    row = {"id": "a", "request_key": key_of("a"), "n": 0}

    assert words_of(Metadata(), {**row, "x_synthetic_performer": "No"})["synthetic_performer"] is False
    assert "synthetic_performer" not in words_of(Metadata(), {**row, "x_synthetic_performer": ""})
    with pytest.raises(JobError, match="'maybe' is neither yes nor no"):
        words_of(Metadata(), {**row, "x_synthetic_performer": "maybe"})


def test_a_label_is_seen_in_its_corner_of_pictures_and_of_every_frame(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "it's, [odd]; a:b"
    odd.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(odd))
    formats = [one for one in FORMATS if one["name"] in {"png", "mp4", "webm"}]
    _deliver(campaign, formats=formats)
    _deliver(campaign, formats=formats, to=str(tmp_path / "seen"), label={"text": "AI", "height": 0.2})

    def shown(folder: str, name: str) -> list[Any]:
        if name == "mug.png":
            return [np.asarray(Image.open(tmp_path / folder / name), int)]
        with av.open(str(tmp_path / folder / name)) as opened:
            return [frame.to_ndarray(format="rgb24").astype(int) for frame in opened.decode(video=0)]

    for name in ("mug.png", "clip.mp4", "clip.webm"):
        pairs = list(zip(shown("out", name), shown("seen", name), strict=True))
        assert len(pairs) == (1 if name == "mug.png" else 4)
        for plain, seen in pairs:
            apart = np.abs(plain - seen).max(axis=2)
            assert np.percentile(apart[70:, 100:], 75) > 40
            assert apart[:48].max() <= (0 if name == "mug.png" else 24)


def test_a_label_that_a_picture_does_not_hold_fails_that_file_alone(campaign: Path) -> None:
    formats = [FORMATS[0], {"name": "tiny", "width": 16, "height": 16, "type": "png", "fit": "contain"}]
    report = _deliver(campaign, formats=formats, name="{format}.{ext}", label={"text": "Generated by a machine"})

    assert list(report.failed) == ["tiny.png"]
    assert "which 16 x 16 do not hold" in report.failed["tiny.png"]
    assert label_image(Label(text="AI"), 400, 300).size[0] < 100
