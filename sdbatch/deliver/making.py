"""One master made into all of its files: decoded once, then fitted, encoded, finished and put, one file after another.

    Task --> make_files() --> Made x files

A task and what comes back are plain values, because they go to processes of their own and come back from them.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image

from sdbatch.canonical import canonical
from sdbatch.deliver.clips import CLIPS_VERSION, ClipShape, make_clip
from sdbatch.deliver.label import LABEL_VERSION, labelled
from sdbatch.deliver.marking import Label
from sdbatch.deliver.placing import Placement
from sdbatch.deliver.stills import STILLS_VERSION, CapMissed, encoded, fitted
from sdbatch.errors import EncodeFailed, RowError
from sdbatch.formats import CLIPS, PICTURES
from sdbatch.local_faults import local_fault
from sdbatch.named_formats import NamedFormat
from sdbatch.packets import Packet

PIXELS_MAX: Final = 1 << 28
"""Most pixels of a master that is a picture."""
Decode = Callable[[bytes, str, int], Image.Image]
"""Brings the bytes of a picture to RGB in sRGB; name and most pixels come with them."""
Put = Callable[[str, bytes, str], None]
Mark = Callable[[Mapping[str, Any], bytes, str], Packet]
"""Returns the XMP of a file; what it is to say, the bytes of its master and its type come with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """A step after encoding, such as one that marks a file or signs it.

    Attributes:
        name: Of the step and its settings: part of a file's key.
        reserved_bytes: Most bytes that it adds, which a byte cap keeps free.
        apply: Returns the finished bytes of a file of some type.
    """

    name: str
    reserved_bytes: int
    apply: Callable[[bytes, str], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileJob:
    """One file that is to be made.

    Attributes:
        name: Under which it is delivered.
        path: Under which it is put.
        format: What it is.
        placement: How the master meets the size.
        words: What it says of itself, by name.
    """

    name: str
    path: str
    format: NamedFormat
    placement: Placement
    words: Mapping[str, Any]


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
    """

    name: str
    sha256: str = ""
    file_bytes: int = 0
    quality: int | None = None
    fault: str = ""


def file_key(
    master_sha256: str,
    one: NamedFormat,
    placement: Placement,
    quality: tuple[int, int],
    bars: tuple[int, int, int],
    words: Mapping[str, Any],
    label: Label | None = None,
    finish: Sequence[Finish] = (),
) -> str:
    """Return the digest of everything that decides a file's bytes, its name apart."""
    values: dict[str, Any] = {
        "master": master_sha256,
        "size": [one.width, one.height],
        "type": one.type,
        "fit": one.fit,
        "box": [round(value, 3) for value in placement.box],
        "version": CLIPS_VERSION if one.is_clip else STILLS_VERSION,
        "finish": [step.name for step in finish],
        "words": words,
    }
    if label is not None:
        values["label"] = {"version": LABEL_VERSION, **label.model_dump()}
    if one.bytes_max is not None:
        values["bytes_max"] = one.bytes_max
    if not one.is_clip:
        values["quality"] = list(quality)
    if one.fit == "letterbox":
        values["bars"] = list(bars)
    return hashlib.sha256(canonical(values).encode()).hexdigest()


def make_files(
    task: Task, read: Callable[[str], bytes], decode: Decode, mark: Mark, put: Put, finish: Sequence[Finish] = ()
) -> list[Made]:
    """Make and put all files of one master; one that fails does not keep the others from being made.

    Args:
        task: The master and its files.
        read: Returns the bytes of an asset.
        decode: Decodes a picture.
        mark: Returns what a file says of itself.
        put: Puts path, bytes and media type.
        finish: Steps after encoding, in order; what signs comes last.

    Raises:
        MachineError: When this machine, or a store, is at fault.
    """
    try:
        data = read(task.asset)
    except FileNotFoundError:
        return _all_failed(task, f"{task.asset} is missing; `sdbatch redo` makes it again")
    if hashlib.sha256(data).hexdigest() != task.sha256:
        return _all_failed(task, f"{task.asset} is not the file that was committed; `sdbatch redo` makes it again")
    if task.shape is not None:
        return _make_clips(task, task.shape, data, mark, put, finish)
    try:
        image = decode(data, task.asset, PIXELS_MAX)
    except RowError as error:
        return _all_failed(task, str(error))
    packets = {job.name: mark(job.words, data, job.format.type) for job in task.files}
    del data
    reserved_bytes = sum(step.reserved_bytes for step in finish)

    def still(job: FileJob) -> tuple[bytes, int | None]:
        one = job.format
        shown = fitted(image, job.placement, (one.width, one.height), one.fit, task.bars)
        shown = shown if task.label is None else labelled(shown, task.label)
        made = encoded(shown, one, *task.quality, reserved_bytes, packets[job.name])
        return made.data, made.quality

    return [_finished(job, still, put, finish) for job in task.files]


def _make_clips(
    task: Task, shape: ClipShape, data: bytes, mark: Mark, put: Put, finish: Sequence[Finish]
) -> list[Made]:
    reserved_bytes = sum(step.reserved_bytes for step in finish)
    with tempfile.TemporaryDirectory(prefix="sdbatch-") as name:
        master = Path(name) / "master"
        master.write_bytes(data)
        packets = {job.name: mark(job.words, data, job.format.type) for job in task.files}
        del data

        def clip(job: FileJob) -> tuple[bytes, None]:
            xmp = packets[job.name]
            one, bars = job.format, task.bars
            return make_clip(master, shape, one, job.placement, bars, reserved_bytes, xmp, task.label), None

        return [_finished(job, clip, put, finish) for job in task.files]


def _finished(
    job: FileJob, make: Callable[[FileJob], tuple[bytes, int | None]], put: Put, finish: Sequence[Finish]
) -> Made:
    one = job.format
    try:
        data, quality = make(job)
    except (CapMissed, EncodeFailed) as error:
        return Made(name=job.name, fault=str(error))
    except OSError as error:
        if fault := local_fault(error, tempfile.gettempdir(), "TMPDIR"):
            raise fault from error
        return Made(name=job.name, fault=f"could not be encoded: {error}")
    for step in finish:
        data = step.apply(data, one.type)
    if one.bytes_max is not None and len(data) > one.bytes_max:
        return Made(name=job.name, fault=f"has {len(data)} bytes once finished, over {one.bytes_max}")
    put(job.path, data, media_type(one))
    digest = hashlib.sha256(data).hexdigest()
    return Made(name=job.name, sha256=digest, file_bytes=len(data), quality=quality)


def media_type(one: NamedFormat) -> str:
    """Return the media type of a format's files."""
    kinds: Mapping[str, Any] = {**PICTURES, **CLIPS}
    return str(kinds[one.type].media_type)


def _all_failed(task: Task, fault: str) -> list[Made]:
    return [Made(name=job.name, fault=fault) for job in task.files]
