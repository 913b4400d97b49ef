"""Galleries of made-up assets: drawn pictures, products by locales, takes, failures, sources and clips."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from sdbatch.campaign.schema import COMMIT, table
from sdbatch.encode.image import thumbnail
from sdbatch.report.gallery import Gallery, written

LOCALES = ("de-DE", "en-GB", "es-ES", "fr-FR", "it-IT", "ja-JP")
SIZES = ((512, 512), (512, 768), (768, 512), (512, 640))
SCENES = ("beach", "desert", "kitchen", "forest", "street")


def drawn(seed: int, width: int, height: int, text: str = "") -> np.ndarray:
    """Return a picture of a coloured scene: image_HWC."""
    random = np.random.default_rng(seed)
    low, high, spot = (tuple(int(value) for value in random.integers(30, 235, 3)) for _ in range(3))
    image = Image.new("RGB", (width, height), low)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, height // 2, width, height), fill=high)
    x, y, r = int(random.integers(width // 4, width * 3 // 4)), height // 2, min(width, height) // 5
    draw.ellipse((x - r, y - r, x + r, y + r), fill=spot)
    draw.text((10, 10), text, fill=(255, 255, 255))
    return np.asarray(image)


def row(number: int, **values: Any) -> dict[str, Any]:
    """Return the metadata row of an asset."""
    width, height = SIZES[number % len(SIZES)]
    request = str(values.get("id", f"row-{number}"))
    key = hashlib.sha256(request.encode()).hexdigest()
    base = {
        "id": request,
        "request_key": key,
        "n": 0,
        "status": "ok",
        "sha256": hashlib.sha256(f"{request} {values.get('n', 0)}".encode()).hexdigest(),
        "task": "text-to-image",
        "model": "tiny",
        "prompt": f"scene {number}",
        "seed": 1000 + number,
        "width": width,
        "height": height,
        "num_inference_steps": 4,
        "guidance_scale": 5.0,
        "media_type": "image/png",
        "run_id": "r000001-20261126T100000Z",
        "recipe": json.dumps({"prompt": f"scene {number}", "seed": 1000 + number}),
    }
    merged = {**base, **values}
    if merged["status"] == "ok":
        merged.setdefault("asset", f"assets/{request}-{key[:8]}-{merged['n']}.png")
    return merged


def campaign_rows(num_products: int, *, takes: int = 1, pictures: list[bytes] | None = None) -> list[dict[str, Any]]:
    """Return rows of products by locales by scenes, some of them failed, with small pictures drawn or given."""
    rows = []
    number = 0
    for product in range(num_products):
        for place, locale in enumerate(LOCALES):
            request = f"mug-{product:03d}.{SCENES[product % len(SCENES)]}.{locale}"
            for n in range(takes):
                width, height = SIZES[place % len(SIZES)]
                small = (
                    pictures[number % len(pictures)] if pictures else thumbnail(drawn(number, width // 4, height // 4))
                )
                own = {"x_product": f"mug-{product:03d}", "x_locale": locale, "x_scene": SCENES[product % len(SCENES)]}
                values = {"id": request, "n": n, "width": width, "height": height, "thumbnail": small, **own}
                values["prompt"] = f"a mug of kind {product} in a {own['x_scene']}, {locale}"
                if number % 97 == 96:
                    values |= {
                        "status": "failed",
                        "error_type": "BlankOutput",
                        "error_message": "all black",
                        "thumbnail": None,
                    }
                rows.append(row(number, **values))
                number += 1
    return rows


def as_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return rows as effective rows are read: the commit's columns and x_*."""
    found = table([{name: value for name, value in one.items() if name in COMMIT.names} for one in rows], COMMIT)
    others = dict.fromkeys(name for one in rows for name in one if name not in COMMIT.names)
    for name in others:
        found = found.append_column(name, pa.array([one.get(name) for one in rows]))
    return found


def write(
    folder: Path, rows: list[dict[str, Any]] | Iterable[pa.Table], campaign: str = "s3://b/spring", **state: Any
) -> Path:
    """Write a gallery under a campaign's folder; return its page."""
    parts = [as_table(rows)] if isinstance(rows, list) else rows
    written(campaign, "r000001", parts, putter(folder / "report"), **state)
    return folder / "report" / "index.html"


def putter(folder: Path) -> Any:
    """Return what writes the files of a gallery into a folder."""

    def put(name: str, data: bytes) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    return put


def state_of(folder: Path) -> dict[str, Any]:
    """Return what the state file of a campaign's gallery says."""
    return dict(handed(folder / "report" / "state.js"))


def columns_of(folder: Path, chunk: str) -> dict[str, list[Any]]:
    """Return the values of a file of data, row by row."""
    columns = {}
    for column in handed(folder / "report" / f"{chunk}.js")["columns"]:
        codes = column.get("codes")
        values = column["numbers"] if "numbers" in column else column["values"]
        columns[column["name"]] = values if codes is None else [values[code] for code in codes]
    return columns


def handed(file: Path) -> Any:
    """Return the JSON that a file of the gallery hands to the page."""
    text = file.read_text().strip()
    arguments = json.loads("[" + text[text.index("(") + 1 :].removesuffix(");") + "]")
    return json.loads(arguments[-1]) if isinstance(arguments[-1], str) else arguments[-1]


def growing(folder: Path) -> Gallery:
    """Return a gallery that writes into a campaign's folder."""
    return Gallery(put=putter(folder / "report"))
