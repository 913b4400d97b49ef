"""One master made into all of its files: decoded once, then fitted, encoded, marked and put, one file after another.

    Task --> make_files() --> Made x files

A task and what comes back are plain values, because they go to processes of their own and come back from them.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdbatch.canonical import canonical
from sdbatch.deliver.clips import CLIPS_VERSION, ClipShape, first_gray, make_clip
from sdbatch.deliver.label import label_values, labelled
from sdbatch.deliver.marking import Label
from sdbatch.deliver.placing import Placement
from sdbatch.deliver.stills import STILLS_VERSION, CapMissed, encoded, fitted, small_gray
from sdbatch.errors import EncodeFailed, RowError
from sdbatch.formats import CLIPS, PICTURES
from sdbatch.local_faults import local_fault
from sdbatch.named_formats import NamedFormat
from sdbatch.packets import Packet

SIDECAR: Final = ".c2pa"
"""Ends the name of the credentials of a file that takes none inside."""
SIDECAR_TYPE: Final = "application/c2pa"
PIXELS_MAX: Final = 1 << 28
"""Most pixels of a master that is a picture."""
Decode = Callable[[bytes, str, int], Image.Image]
"""Brings the bytes of a picture to RGB in sRGB; name and most pixels come with them."""
Put = Callable[[str, bytes, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A file that was signed, or why it was not.

    Attributes:
        data: Content of the file.
        sidecar: Credentials that stand beside it; None without any.
        label: Name of its manifest; "" when it is not signed.
        signer: Name of the signer.
        fault: Why it could not be signed; "" when it was, or is not to be.
    """

    data: bytes
    sidecar: bytes | None = None
    label: str = ""
    signer: str = ""
    fault: str = ""


class Marks(Protocol):
    """What is written into files after their pixels: see `sdbatch.driver.delivery.process`.

    Attributes:
        is_required: Whether a file that could not be signed is not delivered.
    """

    is_required: bool

    def packet(self, job: FileJob, master: bytes) -> Packet:
        """Return the XMP of a file; the bytes of its master come with it."""

    def fingerprint(self, gray_HW: NDArray[np.uint8]) -> str:
        """Return 16 hex digits that stand for what a picture of 32 x 32 shows; "" when it shows nothing."""

    def reserved_bytes(self, job: FileJob) -> int:
        """Return the bytes that signing a file adds at most, which a byte cap keeps free."""

    def signed(self, job: FileJob, data: bytes, packet: Packet, fingerprint: str) -> Signature:
        """Sign a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileJob:
    """One file that is to be made.

    Attributes:
        name: Under which it is delivered.
        path: Under which it is put.
        format: What it is.
        placement: How the master meets the size.
        words: What it says of itself, by name.
        sources: Label and relation of each source whose credentials go into its own.
    """

    name: str
    path: str
    format: NamedFormat
    placement: Placement
    words: Mapping[str, Any]
    sources: tuple[tuple[str, Literal["parentOf", "inputTo"]], ...] = ()

    @property
    def steps(self) -> tuple[str, ...]:
        """What is done to the master, by C2PA's names."""
        placement = self.placement
        left, top, right, bottom = placement.box
        is_scaled = (placement.width, placement.height) != (round(right - left), round(bottom - top))
        cropped, resized = ("cropped",) if placement.crop > 0 else (), ("resized",) if is_scaled else ()
        return (*cropped, *resized, "transcoded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One master and its files.

    Attributes:
        id: Id of the request.
        asset: Path of the master.
        sha256: Of the master, as committed.
        shape: What is known of a clip; None for a picture.
        files: The files.
        quality: Least and most quality.
        bars: Colour of letterbox bars.
        label: Words that are seen on each file.
    """

    id: str
    asset: str
    sha256: str
    shape: ClipShape | None
    files: tuple[FileJob, ...]
    quality: tuple[int, int]
    bars: tuple[int, int, int]
    label: Label | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """How one file ended.

    Attributes:
        name: Under which it is delivered.
        sha256: Of its bytes; "" when it was not made.
        file_bytes: Their number.
        quality: With which a picture was encoded.
        fault: Why it was not made, in words; "" when it was.
        content_sha256: Of its bytes before it was signed.
        fingerprint: Of what it shows.
        c2pa_label: Name of its manifest; "" when it is not signed.
        signer: Name of the signer.
        sidecar_sha256: Of the credentials beside it; "" without any.
        unsigned: Why it was delivered without a signature.
    """

    name: str
    sha256: str = ""
    file_bytes: int = 0
    quality: int | None = None
    fault: str = ""
    content_sha256: str = ""
    fingerprint: str = ""
    c2pa_label: str = ""
    signer: str = ""
    sidecar_sha256: str = ""
    unsigned: str = ""


def file_key(
    master_sha256: str,
    one: NamedFormat,
    placement: Placement,
    quality: tuple[int, int],
    bars: tuple[int, int, int],
    words: Mapping[str, Any],
    label: Label | None = None,
    signing: Mapping[str, Any] | None = None,
) -> str:
    """Return the digest of everything that decides a file's bytes, its name apart."""
    values: dict[str, Any] = {
        "master": master_sha256,
        "size": [one.width, one.height],
        "type": one.type,
        "fit": one.fit,
        "box": [round(value, 3) for value in placement.box],
        "version": CLIPS_VERSION if one.is_clip else STILLS_VERSION,
        "words": words,
    }
    if signing is not None:
        values["signing"] = signing
    if label is not None:
        values["label"] = label_values(label)
    if one.bytes_max is not None:
        values["bytes_max"] = one.bytes_max
    if one.dpi is not None:
        values["dpi"] = one.dpi
    if not one.is_clip:
        values["quality"] = list(quality)
    if one.fit == "letterbox":
        values["bars"] = list(bars)
    return hashlib.sha256(canonical(values).encode()).hexdigest()


def make_files(task: Task, read: Callable[[str], bytes], decode: Decode, marks: Marks, put: Put) -> list[Made]:
    """Make and put all files of one master; one that fails does not keep the others from being made.

    Args:
        task: The master and its files.
        read: Returns the bytes of an asset.
        decode: Decodes a picture.
        marks: What files say of themselves; what signs comes last.
        put: Puts path, bytes and media type.

    Raises:
        MachineError: When this machine, or a store, is at fault.
    """
    try:
        data = read(task.asset)
    except FileNotFoundError:
        return _all_failed(task, f"{task.asset} is missing; `sdbatch redo` makes it again")
    if hashlib.sha256(data).hexdigest() != task.sha256:
        return _all_failed(task, f"{task.asset} is not the file that was committed; `sdbatch redo` makes it again")
    packets = {job.name: marks.packet(job, data) for job in task.files}
    if task.shape is not None:
        return _make_clips(task, task.shape, data, marks, packets, put)
    try:
        image = decode(data, task.asset, PIXELS_MAX)
    except RowError as error:
        return _all_failed(task, str(error))
    del data

    def still(job: FileJob) -> _Encoded:
        one = job.format
        shown = fitted(image, job.placement, (one.width, one.height), one.fit, task.bars)
        shown = shown if task.label is None else labelled(shown, task.label)
        made = encoded(shown, one, *task.quality, marks.reserved_bytes(job), packets[job.name])
        return _Encoded(made.data, made.quality, small_gray(shown))

    return [_finished(job, still, marks, packets[job.name], put) for job in task.files]


class _Encoded(NamedTuple):
    data: bytes
    quality: int | None
    gray_HW: NDArray[np.uint8]


def _make_clips(
    task: Task, shape: ClipShape, data: bytes, marks: Marks, packets: Mapping[str, Packet], put: Put
) -> list[Made]:
    with tempfile.TemporaryDirectory(prefix="sdbatch-") as name:
        master = Path(name) / "master"
        master.write_bytes(data)
        del data

        def clip(job: FileJob) -> _Encoded:
            one, reserved_bytes = job.format, marks.reserved_bytes(job)
            made = make_clip(
                master, shape, one, job.placement, task.bars, reserved_bytes, packets[job.name], task.label
            )
            return _Encoded(made, None, first_gray(master.with_name(f"made.{one.type}"), CLIPS[one.type].demuxer))

        return [_finished(job, clip, marks, packets[job.name], put) for job in task.files]


def _finished(job: FileJob, make: Callable[[FileJob], _Encoded], marks: Marks, packet: Packet, put: Put) -> Made:
    one = job.format
    try:
        made = make(job)
    except CapMissed as error:
        assert one.bytes_max is not None, "a format without a cap does not miss it"
        return Made(name=job.name, fault=error.told(one.bytes_max))
    except EncodeFailed as error:
        return Made(name=job.name, fault=str(error))
    except OSError as error:
        if fault := local_fault(error, tempfile.gettempdir(), "TMPDIR"):
            raise fault from error
        return Made(name=job.name, fault=f"could not be encoded: {error}")
    shown = marks.fingerprint(made.gray_HW)
    signed = marks.signed(job, made.data, packet, shown)
    if signed.fault and marks.is_required:
        return Made(name=job.name, fault=f"could not be signed: {signed.fault}")
    if one.bytes_max is not None and len(signed.data) > one.bytes_max:
        return Made(name=job.name, fault=f"has {len(signed.data)} bytes once signed, over {one.bytes_max}")
    put(job.path, signed.data, media_type(one))
    if signed.sidecar is not None:
        put(job.path + SIDECAR, signed.sidecar, SIDECAR_TYPE)
    return Made(
        name=job.name,
        sha256=hashlib.sha256(signed.data).hexdigest(),
        file_bytes=len(signed.data),
        quality=made.quality,
        content_sha256=hashlib.sha256(made.data).hexdigest(),
        fingerprint=shown,
        c2pa_label=signed.label,
        signer=signed.signer,
        sidecar_sha256="" if signed.sidecar is None else hashlib.sha256(signed.sidecar).hexdigest(),
        unsigned=signed.fault,
    )


def media_type(one: NamedFormat) -> str:
    """Return the media type of a format's files."""
    kinds: Mapping[str, Any] = {**PICTURES, **CLIPS}
    return str(kinds[one.type].media_type)


def _all_failed(task: Task, fault: str) -> list[Made]:
    return [Made(name=job.name, fault=fault) for job in task.files]
