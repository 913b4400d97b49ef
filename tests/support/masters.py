"""A campaign whose masters are drawn, and not rendered: committed by the campaign's own writer.

rows + pictures or clips --> draw_campaign() --> a campaign folder with one run
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sdbatch.campaign import layout
from sdbatch.campaign.lease import acquire
from sdbatch.campaign.schema import to_parquet
from sdbatch.campaign.write import put_asset, put_commit
from sdbatch.encode.asset import encode_asset
from sdbatch.encode.image import thumbnail
from sdbatch.job import Encode
from sdbatch.storage import LocalStore
from sdbatch.types import Sound
from support.clips import PATCHES

STAMP = "20260101T000000Z"

# F frames, H and W pixels, C = 3 channels.


def patches(width: int, height: int, number: int = 0) -> NDArray[np.uint8]:
    """Return image_HWC of four patches of colour, with a thin mark that differs by number."""
    image_HWC = np.empty((height, width, 3), np.uint8)
    for place, colour in enumerate(PATCHES):
        rows = slice(0, height // 2) if place < 2 else slice(height // 2, None)
        columns = slice(0, width // 2) if place % 2 == 0 else slice(width // 2, None)
        image_HWC[rows, columns] = colour
    image_HWC[:4, :4] = number * 37 % 256
    return image_HWC


def noise(width: int, height: int, number: int = 0) -> NDArray[np.uint8]:
    """Return image_HWC of soft noise, which takes an encoder bytes as a photograph does."""
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    fine = random.integers(-24, 25, (height, width, 3))
    wide = np.kron(coarse, np.ones((8, 8, 1), int))[:height, :width]
    return (wide + fine).clip(0, 255).astype(np.uint8)


def draw_campaign(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    pixels: Mapping[str, NDArray[np.uint8]],
    *,
    encode: Encode | None = None,
    keys: Mapping[str, str] | None = None,
    sounds: Mapping[str, Sound] | None = None,
    thumbnails: bool = False,
) -> None:
    """Write a run whose manifest has some rows, and commit a master for each id that has pixels; the rest failed.

    Args:
        folder: The campaign; another run is added to one that is there.
        rows: `id`, and x_ columns.
        pixels: image_HWC, or frames_FHWC of a clip, by id.
        encode: As in a job.
        keys: Request keys by id; they follow from the id by default.
        sounds: Sound of clips, by id.
        thumbnails: Whether the commit shows its pictures, as a worker's does.
    """
    store = LocalStore(str(folder))
    acquire(store).release()
    epochs = [entry for entry in store.list(layout.LEASE) if entry.path.endswith(".json")]
    run = layout.run_id(len(epochs), STAMP)
    keys = {**{row["id"]: key_of(row["id"]) for row in rows}, **(keys or {})}
    asked = {
        "id": [row["id"] for row in rows],
        "request_key": [keys[row["id"]] for row in rows],
        "num_outputs": pa.array([1] * len(rows), pa.int32()),
    }
    own = dict.fromkeys(name for row in rows for name in row if name.startswith("x_"))
    asked |= {name: [row.get(name) for row in rows] for name in own}
    store.put_new(layout.requests(run, 0), to_parquet(pa.table(asked)))
    options = encode or Encode()
    committed = []
    for row in rows:
        common = {"id": row["id"], "request_key": keys[row["id"]], "task": "text-to-image", "prompt": "drawn"}
        frames = pixels.get(row["id"])
        if frames is None:
            failed = {"n": None, "status": "failed", "error_type": "GenerationFailed", "error_message": "drawn badly"}
            committed.append({**common, **failed, "height": 64, "width": 64})
            continue
        is_clip = frames.ndim == 4
        fps = 8.0 if is_clip else None
        made = encode_asset(
            frames if is_clip else frames[None],
            options,
            fps=fps,
            sound=(sounds or {}).get(row["id"]),
            request_key=keys[row["id"]],
            n=0,
            recipe="{}",
        )
        path = layout.asset(row["id"], keys[row["id"]], 0, made.suffix)
        stored = put_asset(store, path, made.data, made.media_type, lambda _: True)
        committed.append(
            {
                **common,
                "task": "text-to-video" if is_clip else "text-to-image",
                "n": 0,
                "status": "ok",
                "asset": stored.path,
                "sha256": stored.sha256,
                "asset_bytes": stored.asset_bytes,
                "media_type": made.media_type,
                "height": frames.shape[-3],
                "width": frames.shape[-2],
                "num_frames": len(frames) if is_clip else None,
                "fps": fps,
                "thumbnail": thumbnail(frames) if thumbnails else None,
            }
        )
    assert put_commit(store, run, "000000", committed)


def key_of(text: str) -> str:
    """Return 64 hex digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()
