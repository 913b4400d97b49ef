"""XMP packets, and masters that carry one: in all six file types, for other programs, and byte for byte the same."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from support.exiftool import exiftool
from support.masters import noise, patches

import sdbatch
from sdbatch.encode.asset import encode_asset, read_embedded, read_frames
from sdbatch.fetch.origin import said_source_type
from sdbatch.job import Encode
from sdbatch.packets import JPEG_BYTES_MAX, packet_in
from sdbatch.provenance.source_type import COMPOSITE, GENERATED, digital_source_type
from sdbatch.provenance.xmp import CUT, Properties, of_master, packet_of, read_packet
from sdbatch.recipe import Recipe

KEY = "a" * 64
RECIPE = Recipe(task="text-to-image", model="c0ffee" * 8, height=64, width=64, num_inference_steps=2)
TYPES = ("png", "jpg", "webp", "avif", "mp4", "webm")
PACKET = of_master(RECIPE, "StableDiffusionPipeline", GENERATED, KEY, 3)


def _encoded(suffix: str) -> bytes:
    is_clip = suffix in {"mp4", "webm"}
    options = Encode.model_validate({"video" if is_clip else "image": suffix})
    frames_FHWC = np.stack([patches(64, 48, number) for number in range(4 if is_clip else 1)])
    return encode_asset(
        frames_FHWC,
        options,
        fps=8.0 if is_clip else None,
        sound=None,
        request_key=KEY,
        n=3,
        recipe='{"prompt":"a = b; c # \\\\"}',
        xmp=PACKET,
    ).data


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("marked")
    made = {suffix: folder / f"file.{suffix}" for suffix in TYPES}
    for suffix, file in made.items():
        file.write_bytes(_encoded(suffix))
    return made


@pytest.mark.parametrize("suffix", TYPES)
def test_two_encodings_are_equal_and_the_recipe_is_still_read(files: dict[str, Path], suffix: str) -> None:
    data = files[suffix].read_bytes()
    embedded = read_embedded(data, suffix)

    assert _encoded(suffix) == data
    assert embedded is not None
    assert (embedded["request_key"], embedded["n"], embedded["recipe"]) == (KEY, 3, {"prompt": "a = b; c # \\"})
    assert read_frames(data, suffix, 48, 64).shape[1:] == (48, 64, 3)


@pytest.mark.parametrize("suffix", TYPES)
def test_exiftool_finds_what_a_master_says(files: dict[str, Path], suffix: str) -> None:
    found = exiftool(files[suffix])

    if suffix == "webm":
        assert found["Matroska:DigitalSourceType"] == GENERATED
        return
    assert found["XMP-iptcExt:DigitalSourceType"] == GENERATED
    assert found["XMP-iptcExt:AISystemUsed"] == "StableDiffusionPipeline"
    assert found["XMP-iptcExt:AISystemVersionUsed"] == RECIPE.model
    assert found["XMP-xmp:CreatorTool"] == "sdbatch"
    assert found["XMP-xmpMM:DocumentID"] == f"urn:sdbatch:{KEY}:3"


@pytest.mark.parametrize("suffix", TYPES)
def test_a_second_reader_finds_it_too(files: dict[str, Path], suffix: str) -> None:
    if suffix == "webm":
        with av.open(str(files[suffix])) as opened:
            tags = {name.upper(): value for name, value in opened.metadata.items()}
        assert tags["DIGITAL_SOURCE_TYPE"] == GENERATED
        found: bytes | None = tags["XMP"].encode()
    elif suffix == "mp4":
        found = packet_in(files[suffix].read_bytes())
    else:
        with Image.open(files[suffix]) as image:
            image.load()
            found = image.info["xmp"] if suffix != "png" else image.info["XML:com.adobe.xmp"].encode()

    assert found == PACKET.data
    assert packet_in(files[suffix].read_bytes()) in {PACKET.data, PACKET.data[PACKET.data.find(b"<x:") : -19]}


def test_the_type_of_what_is_made_follows_from_its_task_and_its_sources() -> None:
    assert digital_source_type("text-to-image", ()) == GENERATED
    assert digital_source_type("text-to-video", ()) == GENERATED
    assert digital_source_type("image-to-image", ()) == COMPOSITE
    assert digital_source_type("image-to-image", (GENERATED,)) == GENERATED
    assert digital_source_type("image-to-video", (GENERATED, "")) == COMPOSITE
    assert digital_source_type("inpainting", (COMPOSITE,)) == COMPOSITE


def test_what_xml_cannot_hold_is_replaced_and_the_rest_is_read_back() -> None:
    text = 'a <b> & "c"\n\ttab\x00\x0b\x1f\ud800 é 😀'
    properties = Properties(
        source_type=GENERATED,
        system="s",
        system_version="v",
        title=text,
        creator=text,
        keywords=("one & two", "three"),
        synthetic_performer=True,
    )
    packet = packet_of(properties, "png")
    found = read_packet(packet.data)

    assert b"\n" not in packet.data
    assert found["dc:title"] == 'a <b> & "c"\n\ttab\ufffd\ufffd\ufffd\ufffd é 😀'
    assert found["dc:creator"] == [found["dc:title"]]
    assert found["dc:subject"] == ["one & two", "three"]
    assert found["sdbatch:SyntheticPerformer"] == "True"


@pytest.mark.parametrize("text", ["x" * 70_000, "&" * 30_000, "😀" * 30_000])
def test_a_jpeg_takes_64_kib_and_what_is_cut_says_so(text: str) -> None:
    properties = Properties(source_type=GENERATED, system="s", system_version="v", prompt=text, rights="all mine")
    packet = packet_of(properties, "jpg")
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", xmp=packet.data)
    found = read_packet(packet_in(buffer.getvalue()))

    assert len(packet_of(properties, "png").data) > JPEG_BYTES_MAX >= len(packet.data)
    assert found["Iptc4xmpExt:AIPromptInformation"].endswith(CUT)
    assert text.startswith(found["Iptc4xmpExt:AIPromptInformation"].removesuffix(CUT))
    assert len(found["Iptc4xmpExt:AIPromptInformation"]) > 5_000
    assert found["dc:rights"] == "all mine"
    assert read_packet(packet_of(properties, "png").data)["Iptc4xmpExt:AIPromptInformation"] == text


_ENTITY = b'<!DOCTYPE a [<!ENTITY b "urn:sdbatch:c">]>' + PACKET.data[PACKET.data.find(b"<x:") :].replace(
    b"urn:sdbatch:", b"&b;"
)


def test_a_packet_with_entities_is_not_read() -> None:
    assert read_packet(PACKET.data)["xmpMM:DocumentID"] == f"urn:sdbatch:{KEY}:3"
    assert read_packet(_ENTITY) == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<x:xmpmeta",
        b"<x:xmpmeta" * 100_000,
        b"RIFF\0\0\0\0WEBP" + b"JUNK\0\0\0\0" * (1 << 16) + b"XMP " + struct.pack("<I", len(PACKET.data)) + PACKET.data,
        b"\x89PNG\r\n\x1a\n" + b"\xff" * 40,
        b"\xff\xd8\xff\xe1\xff\xff",
        b"RIFF\0\0\0\0WEBPXMP \xff\xff\xff\xff",
        b"\0\0\0\1ftyp" + b"\0" * 16,
        b"\0\0\0\2ftyp" + b"\0" * 16,
    ],
)
def test_a_damaged_or_hostile_packet_says_nothing(data: bytes) -> None:
    assert read_packet(packet_in(data)) == {}
    assert said_source_type(data) == ""


def _source(packet: str) -> bytes:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("XML:com.adobe.xmp", packet, zip=True)
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "words",
    [
        f"<Iptc4xmpExt:DigitalSourceType>{GENERATED}</Iptc4xmpExt:DigitalSourceType>",
        f'<rdf:Description Iptc4xmpExt:DigitalSourceType="{GENERATED}"/>',
        f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{GENERATED.replace("http:", "https:")}"/>',
    ],
)
def test_what_a_source_says_is_found_however_it_is_written(words: str) -> None:
    assert said_source_type(_source(f"<x:xmpmeta>{words}</x:xmpmeta>")) == GENERATED
    assert said_source_type(_source("<x:xmpmeta></x:xmpmeta>")) == ""


def test_a_run_marks_what_it_makes_by_what_its_sources_say(
    write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "photo.png").write_bytes(_source("<x:xmpmeta></x:xmpmeta>"))
    (tmp_path / "made.png").write_bytes(_source(PACKET.data.decode()))
    rows = [
        {"id": "drawn", "task": "text-to-image", "prompt": "a fox", "seed": 1},
        *(
            {
                "id": name,
                "task": "image-to-image",
                "prompt": "a fox",
                "images": str(tmp_path / f"{name}.png"),
                "seed": 1,
            }
            for name in ("photo", "made")
        ),
    ]
    sums = []
    for output in ("one", "two"):
        job = job_of(write_manifest(rows), defaults={"num_inference_steps": 2}, output=str(tmp_path / output))
        sdbatch.run(job, in_process=True)
        made = {row["id"]: row for row in sdbatch.metadata(job["output"]).to_pylist()}
        sums.append({name: row["sha256"] for name, row in made.items()})
    said = {name: read_packet(packet_in((tmp_path / "two" / row["asset"]).read_bytes())) for name, row in made.items()}

    assert sums[0] == sums[1]
    assert {name: words["Iptc4xmpExt:DigitalSourceType"] for name, words in said.items()} == {
        "drawn": GENERATED,
        "photo": COMPOSITE,
        "made": GENERATED,
    }
    assert all(words["Iptc4xmpExt:AISystemUsed"].startswith("StableDiffusion") for words in said.values())
