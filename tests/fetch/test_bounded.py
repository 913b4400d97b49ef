"""Strangers' sources are decoded in child processes: whatever a file does to its decoder costs its own row alone."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.hostile import slow_jpeg

from sdbatch.encode.video import encode_video
from sdbatch.errors import (
    DecoderUnavailable,
    RowError,
    SourceMissing,
    SourceTooLarge,
    SourceUnreadable,
    StoreUnavailable,
)
from sdbatch.fetch.bounded import decoder as module
from sdbatch.fetch.bounded.decoder import BoundedDecoder
from sdbatch.fetch.bounded.memory import MIB, MemoryBudget
from sdbatch.fetch.bounded.process import ChildEnded, ChildProcess
from sdbatch.fetch.bounded.wire import Nonsense, laid_out, taken_up
from sdbatch.fetch.decode import decode_sources
from sdbatch.fetch.settings import PixelSettings
from sdbatch.job import Encode
from sdbatch.types import Source

CAP = 40_000_000
SETTINGS = PixelSettings(height=32, width=48)


def _png(colour: tuple[int, int, int] = (10, 20, 30), size: tuple[int, int] = (40, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def _clip(num_frames: int) -> bytes:
    frames_FHWC = np.repeat(np.arange(num_frames, dtype=np.uint8) * 20, 64 * 64 * 3).reshape(-1, 64, 64, 3)
    return encode_video(frames_FHWC, 8.0, Encode(), request_key="a" * 64, n=0, recipe="{}").data


def _source(url: str = "brand/a.png", role: str = "images") -> Source:
    return Source(role=role, url=url, digest="")


@pytest.fixture
def make() -> Iterator[Callable[..., BoundedDecoder]]:
    """Returns decoders, which are ended after the test."""
    made: list[BoundedDecoder] = []

    def decoder(**options: Any) -> BoundedDecoder:
        made.append(BoundedDecoder(**{"pixels_max": CAP, "file_bytes_max": 64 * MIB, "num_children": 1, **options}))
        return made[-1]

    yield decoder
    for one in made:
        one.close()


def _decoded(decoder: BoundedDecoder, data: bytes, url: str = "brand/a.png") -> Any:
    return decoder.decode([_source(url)], SETTINGS, lambda _: data)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


def _until(is_so: Callable[[], bool], seconds: float = 60.0) -> bool:
    end_s = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end_s:
        time.sleep(0.02)
    return is_so()


# --- the same pixels ------------------------------------------------------------------------------------------------


def test_a_child_gives_what_decoding_gives(make: Callable[..., BoundedDecoder]) -> None:
    mask = Image.new("L", (40, 20), 0)
    mask.paste(255, (0, 0, 20, 20))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    files = {"a.png": _png(), "b.png": _png((200, 0, 0)), "mask.png": buffer.getvalue(), "control.png": _png((0, 9, 0))}
    roles = ["images", "images", "mask", "control_image"]
    sources = [_source(url, role) for url, role in zip(files, roles, strict=True)]
    expected = decode_sources(sources, SETTINGS, lambda source: files[source.url], CAP)
    for _ in range(2):
        pixels = make().decode(sources, SETTINGS, lambda source: files[source.url])

        assert pixels.keys() == expected.keys() == {"images", "mask", "control_image"}
        assert len(pixels["images"]) == 2
        for one, two in zip(pixels["images"], expected["images"], strict=True):
            np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(pixels["mask"], expected["mask"])
        np.testing.assert_array_equal(pixels["control_image"][0], expected["control_image"][0])


def test_a_clip_comes_back_through_shared_memory(make: Callable[..., BoundedDecoder]) -> None:
    settings = PixelSettings(height=32, width=48, num_frames=9, fps=8.0)
    data = _clip(9)
    source = _source("a.mp4", "video")
    pixels = make().decode([source], settings, lambda _: data)
    expected = decode_sources([source], settings, lambda _: data, CAP)

    assert pixels["video"].shape == (9, 32, 48, 3)
    np.testing.assert_array_equal(pixels["video"], expected["video"])


def test_only_clips_take_a_temporary_folder_and_it_goes_with_the_child(
    make: Callable[..., BoundedDecoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    decoder = make()
    _decoded(decoder, _png())
    assert list(tmp_path.iterdir()) == []
    settings = PixelSettings(height=32, width=48, num_frames=9, fps=8.0)
    decoder.decode([_source("a.mp4", "video")], settings, lambda _: _clip(9))
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.iterdir()) == []
    decoder.close()
    assert list(tmp_path.iterdir()) == []


def test_a_child_serves_many_and_imports_neither_torch_nor_arrow(make: Callable[..., BoundedDecoder]) -> None:
    decoder = make()
    _decoded(decoder, _png())
    (pid,) = decoder.children()
    for _ in range(5):
        _decoded(decoder, _png())
    maps = Path(f"/proc/{pid}/maps").read_text()

    assert decoder.children() == [pid]
    assert "PIL/_imaging" in maps
    assert not [name for name in ("torch", "pyarrow", "ray/", "pydantic") if name in maps]
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"HOME=" not in environment
    assert b"PYTEST_CURRENT_TEST" not in environment


def test_what_is_wrong_with_a_source_is_told_as_without_a_child(make: Callable[..., BoundedDecoder]) -> None:
    decoder = make(pixels_max=799)
    with pytest.raises(SourceTooLarge, match=r"^brand/a\.png: 40 x 20 pixels are over 799$"):
        _decoded(decoder, _png())
    pids = decoder.children()
    with pytest.raises(SourceUnreadable, match=r"^brand/a\.png: not a picture of"):
        _decoded(decoder, b"not a picture")

    assert decoder.children() == pids  # such a file costs no process


def test_what_a_reader_raises_is_raised_and_the_next_request_is_served(make: Callable[..., BoundedDecoder]) -> None:
    decoder = make()
    for error in (SourceMissing("gone"), StoreUnavailable("down")):

        def read(_: Source, error: Exception = error) -> bytes:
            raise error

        with pytest.raises(type(error)):
            decoder.decode([_source()], SETTINGS, read)
        assert _decoded(decoder, _png())["images"][0].shape == (32, 48, 3)


# --- what a file may do to its decoder ------------------------------------------------------------------------------


@pytest.mark.fault("S6", "a progressive JPEG of 0.2 MB that decodes for minutes", "its row fails at a bound on time")
def test_a_picture_that_decodes_for_ever_is_ended_and_blamed(make: Callable[..., BoundedDecoder]) -> None:
    decoder = make(picture_processor_s=1.0)
    data = slow_jpeg()
    with pytest.raises(SourceUnreadable, match=r"^slow\.jpg: decoding it took over 1 s of processor time$"):
        _decoded(decoder, data, "slow.jpg")
    assert _decoded(decoder, _png())["images"][0].shape == (32, 48, 3)


@pytest.mark.fault("S6", "a decoder that hangs without using the processor", "its row fails at a bound on wall time")
def test_a_decoder_that_hangs_is_ended(make: Callable[..., BoundedDecoder]) -> None:
    decoder = make(wall_s=3.0)
    _decoded(decoder, _png())
    (pid,) = decoder.children()
    os.kill(pid, signal.SIGSTOP)  # as a deadlock inside a decoder does
    frozen: list[int] = []

    def read(_: Source) -> bytes:
        new = [one for one in decoder.children() if one != pid]
        frozen.extend(new)
        for one in new:
            os.kill(one, signal.SIGSTOP)
        return _png()

    with pytest.raises(SourceUnreadable, match=r"^brand/a\.png: decoding it took over 3 s$"):
        decoder.decode([_source()], SETTINGS, read)
    assert frozen
    assert _until(lambda: not _alive(pid) and not _alive(frozen[0]))
    assert _decoded(decoder, _png())


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _profile_bomb() -> bytes:
    """Return a PNG of 64 x 64 pixels and 300 kB whose colour profile unpacks to 300 MiB."""
    header = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    profile = b"icc\0\0" + zlib.compress(b"\0" * (300 * MIB), 1)
    rows = zlib.compress(b"\0" * 64 * (64 * 3 + 1))
    chunks = _chunk(b"IHDR", header) + _chunk(b"iCCP", profile) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.fault("S6", "a small picture whose colour profile unpacks to 300 MiB", "memory stays bounded")
def test_what_a_picture_unpacks_beside_its_pixels_is_bounded(make: Callable[..., BoundedDecoder]) -> None:
    decoder = make()
    _decoded(decoder, _png())
    highest: list[int] = []

    def read(_: Source) -> bytes:
        return _profile_bomb()

    with contextlib.suppress(RowError):
        decoder.decode([_source("bomb.png")], SETTINGS, read)
    for pid in decoder.children():
        status = Path(f"/proc/{pid}/status").read_text()
        highest.append(int(status.split("VmHWM:")[1].split()[0]) // 1024)
    assert max(highest, default=0) < 200
    assert _decoded(decoder, _png())["images"][0].shape == (32, 48, 3)


@pytest.mark.fault("S6", "a picture that needs more memory than it was given", "its row says so; nobody else is blamed")
def test_memory_beyond_the_bound_is_refused_by_the_kernel(make: Callable[..., BoundedDecoder]) -> None:
    data = _png(size=(6000, 5000))
    child = ChildProcess(make()._bounds)
    stingy = _Stingy(1 << 40)
    with pytest.raises(ChildEnded) as caught:
        child.decode([_source("large.png")], SETTINGS, lambda _: data, stingy)
    child.end()

    assert isinstance(caught.value.failure, SourceTooLarge)
    assert str(caught.value) == "large.png: decoding it takes more than 20 MiB of memory"


class _Stingy(MemoryBudget):
    """Gives far less than is asked for."""

    @contextlib.contextmanager
    def held(self, num_bytes: int) -> Iterator[int]:
        assert num_bytes > 20 * MIB
        yield 20 * MIB


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL"])
@pytest.mark.fault("S6", "a file that makes its decoder crash", "its row fails and says how; the next one is decoded")
def test_a_crash_fails_the_row_of_the_file_that_caused_it(make: Callable[..., BoundedDecoder], name: str) -> None:
    decoder = make()

    def read(_: Source) -> bytes:
        for pid in decoder.children():
            os.kill(pid, getattr(signal, name))
        time.sleep(0.05)
        return _png()

    with pytest.raises(SourceUnreadable, match=rf"^evil\.png: the process that decodes it ended with {name}$"):
        decoder.decode([_source("evil.png")], SETTINGS, read)
    assert _decoded(decoder, _png())["images"][0].shape == (32, 48, 3)


@pytest.mark.fault(
    "S6", "a picture decoded by a child that an earlier file had spoiled", "it is decoded by a new child"
)
def test_what_an_earlier_file_did_to_a_child_blames_nobody_else(make: Callable[..., BoundedDecoder]) -> None:
    decoder = make()
    _decoded(decoder, _png(), "evil.png")
    (spoiled,) = decoder.children()

    def read(_: Source) -> bytes:
        if spoiled in decoder.children():
            os.kill(spoiled, signal.SIGSEGV)
            time.sleep(0.05)
        return _png()

    assert decoder.decode([_source("innocent.png")], SETTINGS, read)["images"][0].shape == (32, 48, 3)
    assert spoiled not in decoder.children()


@pytest.mark.fault("S6", "a machine whose memory runs out for a moment", "the picture is decoded after a wait")
def test_a_child_that_the_system_killed_is_replaced_and_nobody_is_blamed(
    make: Callable[..., BoundedDecoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KILLED_WAITS_S", (0.1, 0.1))
    decoder = make()
    killed: list[int] = []

    def read(_: Source) -> bytes:
        if len(killed) < 2:
            killed.extend(decoder.children())
            os.kill(killed[-1], signal.SIGKILL)
            time.sleep(0.05)
        return _png()

    assert decoder.decode([_source()], SETTINGS, read)["images"][0].shape == (32, 48, 3)
    assert len(set(killed)) == 2
    monkeypatch.setattr(module, "KILLED_WAITS_S", ())

    def kill_always(_: Source) -> bytes:
        os.kill(decoder.children()[0], signal.SIGKILL)
        time.sleep(0.05)
        return _png()

    with pytest.raises(SourceUnreadable, match="was killed, perhaps because the machine has no memory left"):
        decoder.decode([_source()], SETTINGS, kill_always)


# --- where children end ---------------------------------------------------------------------------------------------

_OWNER = """
import io, os, sys, time
from PIL import Image
from sdbatch.fetch.bounded.decoder import BoundedDecoder
from sdbatch.fetch.settings import PixelSettings
from sdbatch.job import Encode
from sdbatch.types import Source

buffer = io.BytesIO(); Image.new("RGB", (8, 8)).save(buffer, "PNG")
decoder = BoundedDecoder(pixels_max=10**8, file_bytes_max=10**8, num_children=1)
def read(source):
    return open(sys.argv[1], "rb").read() if source.url == "slow" else buffer.getvalue()
settings = PixelSettings(height=8, width=8)
decoder.decode([Source(role="images", url="a", digest="")], settings, read)
print(*decoder.children(), flush=True)
if sys.argv[1]:
    decoder.decode([Source(role="images", url="slow", digest="")], settings, read)
time.sleep(60)
"""


@pytest.mark.parametrize("is_decoding", [False, True])
@pytest.mark.fault(
    "S6", "a worker that is killed while it decodes", "its decoding processes end, nothing is left behind"
)
def test_children_end_with_a_worker_that_is_killed(tmp_path: Path, is_decoding: bool) -> None:
    slow = tmp_path / "slow.jpg"
    slow.write_bytes(slow_jpeg())
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(slow) if is_decoding else ""], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    child = int(owner.stdout.readline())
    time.sleep(0.3 if is_decoding else 0)
    assert _alive(child)
    held = [str(link.readlink()) for link in Path(f"/proc/{child}/fd").iterdir()]
    assert len([name for name in held if name.startswith("/memfd:")]) >= 2  # memory without a name goes with its users
    assert not [name for name in held if name.startswith("/dev/shm")]
    owner.kill()
    owner.wait()
    owner.stdout.close()

    assert _until(lambda: not _alive(child))


def test_children_end_when_nobody_holds_their_decoder_any_more() -> None:
    decoder = BoundedDecoder(pixels_max=CAP, file_bytes_max=MIB, num_children=1)
    _decoded(decoder, _png())
    (pid,) = decoder.children()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    del decoder
    gc.collect()

    assert not _alive(pid)
    assert len(list(Path("/proc/self/fd").iterdir())) < descriptors


@pytest.mark.parametrize(
    ("program", "said"), [("/bin/false", "does not start: it said nothing"), ("/no/python", "cannot be started")]
)
def test_a_machine_that_starts_no_process_is_no_fault_of_a_row(
    make: Callable[..., BoundedDecoder], monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    decoder = make()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", program)
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(DecoderUnavailable, match=said):
            _decoded(decoder, _png())
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors

    assert _decoded(decoder, _png())["images"][0].shape == (32, 48, 3)


# --- how many, and how much -----------------------------------------------------------------------------------------


def test_one_child_serves_many_threads_where_decoding_is_quick(
    make: Callable[..., BoundedDecoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdbatch.fetch.bounded.decoder.PATIENCE_S", 60.0)  # on a busy machine nothing is quick
    decoder = make(num_children=4)
    seen: set[int] = set()

    def read(_: Source) -> bytes:
        seen.update(decoder.children())
        return _png()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: decoder.decode([_source()], SETTINGS, read), range(40)))
    assert len(seen) == 1


def test_there_are_more_children_where_it_takes_long_and_never_more_than_places(
    make: Callable[..., BoundedDecoder],
) -> None:
    decoder = make(num_children=2)
    both = threading.Barrier(2, timeout=60)
    seen: set[int] = set()
    most = 0

    def read(_: Source) -> bytes:
        nonlocal most
        both.wait()  # passed by two that are being read at once
        alive = decoder.children()
        most = max(most, len(alive))
        seen.update(alive)
        return _png()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: decoder.decode([_source()], SETTINGS, read), range(40)))
    assert most == 2
    assert len(seen) == 2


def test_a_budget_is_never_exceeded_and_the_first_to_wait_is_served_first() -> None:
    budget = MemoryBudget(100)
    order: list[str] = []
    held = threading.Event()
    leave = threading.Event()

    def take(name: str, num_bytes: int, *, is_holding: bool = False) -> None:
        with budget.held(num_bytes):
            order.append(name)
            if is_holding:
                held.set()
                leave.wait()

    holder = threading.Thread(target=take, args=("holder", 60), kwargs={"is_holding": True})
    holder.start()
    held.wait()
    large = threading.Thread(target=take, args=("large", 1000))  # more than there is: it runs alone
    large.start()
    assert _until(lambda: len(budget._waiting) == 1)
    small = threading.Thread(target=take, args=("small", 10))
    small.start()
    assert _until(lambda: len(budget._waiting) == 2)
    assert order == ["holder"]
    leave.set()
    for thread in (holder, large, small):
        thread.join()
    assert order == ["holder", "large", "small"]


def _nested(depth: int) -> Any:
    return {"items": [_nested(depth - 1)] if depth else []}


@pytest.mark.parametrize(
    "tree",
    [
        None,
        [],
        {"shape": [1, -1], "offset": 0},
        {"shape": [2.0], "offset": 0},
        {"shape": [10], "offset": 1 << 60},
        {"pairs": [["a"]]},
        {"items": 3},
        {"plain": []},
        _nested(9),
    ],
)
def test_a_child_that_answers_nonsense_is_not_believed(tree: Any) -> None:
    def read(offset: int, size: int) -> Any:
        if offset + size > 4:
            raise Nonsense("pixels lie where there are none")
        return np.zeros(size, np.uint8)

    with pytest.raises(Nonsense):
        taken_up(tree, read)


def test_pixels_come_back_as_they_were_laid_out() -> None:
    one, two = np.arange(24, dtype=np.uint8).reshape(2, 4, 3), np.zeros((3, 0), np.uint8)
    arrays: list[Any] = []
    tree, num_bytes = laid_out({"images": (one, two), "note": "broken profile", "none": None}, arrays)
    data = np.concatenate([array.ravel() for array in arrays])
    back = taken_up(tree, lambda offset, size: data[offset : offset + size])

    assert num_bytes == 24
    np.testing.assert_array_equal(back["images"][0], one)
    assert back["images"][1].shape == (3, 0)
    assert (back["note"], back["none"]) == ("broken profile", None)
