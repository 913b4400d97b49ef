"""Where a run is struck, and what is struck there: literal tables.

    POINTS x VICTIMS x STORES - SENSELESS = the kills of `make chaos`

A point is a passage of a named function; a name that is gone fails its cases (see inject/sitecustomize.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Victim = Literal["worker", "driver", "raylet", "cluster", "s3"]
VICTIMS: tuple[Victim, ...] = ("worker", "driver", "raylet", "cluster", "s3")
STORES = ("local", "s3")
PUTS = ("LocalStore.put", "ObjectStore.put")
PUTS_NEW = ("LocalStore.put_new", "ObjectStore.put_new")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A moment of a run.

    Attributes:
        name: Words, with hyphens.
        module: Where the function lives.
        functions: `function` or `Class.method`; more than one where two stores have the same.
        when: Whether the signal comes before the function runs or after it returned.
        process: Which process passes here.
        phase: `start` (before the cluster), `work` (workers are there) or `end` (the cluster is shut down again).
        passage: Which passage of one process counts, from 1; only those while the victim is there.
        argument: Pattern that a text argument must hold for a passage to count.
    """

    name: str
    module: str
    functions: tuple[str, ...]
    when: Literal["before", "after"]
    process: Literal["worker", "driver"]
    phase: Literal["start", "work", "end"] = "work"
    passage: int = 1
    argument: str | None = None


_STORAGE = "sdbatch.storage"
_UNET = "diffusers.models.unets.unet_2d_condition"

POINTS: tuple[Point, ...] = (
    Point(
        name="after-taking-the-lease",
        module=_STORAGE,
        functions=PUTS_NEW,
        when="after",
        process="driver",
        phase="start",
        argument=r"^lease/\d+\.json$",
    ),
    Point(
        name="before-writing-the-plan",
        module=_STORAGE,
        functions=PUTS_NEW,
        when="before",
        process="driver",
        phase="start",
        argument=r"/requests/part-",
    ),
    Point(
        name="before-load",
        module="sdbatch.generate.load",
        functions=("load_model",),
        when="before",
        process="worker",
    ),
    Point(
        name="after-load",
        module="sdbatch.generate.load",
        functions=("load_model",),
        when="after",
        process="worker",
    ),
    Point(
        name="after-fetch",
        module="sdbatch.worker.unit",
        functions=("_UnitInProgress._fetch",),
        when="after",
        process="worker",
        passage=3,
    ),
    Point(  # two steps a batch: the second step of the second batch
        name="mid-denoise",
        module=_UNET,
        functions=("UNet2DConditionModel.forward",),
        when="before",
        process="worker",
        passage=4,
    ),
    Point(
        name="after-generate",
        module="sdbatch.generate.batch",
        functions=("make_batch",),
        when="after",
        process="worker",
        passage=2,
    ),
    Point(
        name="after-encode",
        module="sdbatch.encode.image",
        functions=("encode_image",),
        when="after",
        process="worker",
        passage=6,
    ),
    Point(  # batches of four: the second unit's second asset
        name="between-two-assets",
        module="sdbatch.campaign.write",
        functions=("put_asset",),
        when="after",
        process="worker",
        passage=6,
    ),
    Point(
        name="amid-a-file",
        module=_STORAGE,
        functions=("LocalStore._temporary",),
        when="after",
        process="worker",
        passage=7,
    ),
    Point(
        name="before-the-commit",
        module="sdbatch.campaign.write",
        functions=("put_commit",),
        when="before",
        process="worker",
        passage=2,
    ),
    Point(
        name="after-the-commit",
        module="sdbatch.campaign.write",
        functions=("put_commit",),
        when="after",
        process="worker",
        passage=2,
    ),
    Point(
        name="lease-renewal",
        module=_STORAGE,
        functions=PUTS,
        when="before",
        process="driver",
        argument=r"^lease/\d+\.beat$",
    ),
    Point(
        name="writing-status",
        module=_STORAGE,
        functions=PUTS,
        when="before",
        process="driver",
        passage=2,
        argument=r"/status\.json$",
    ),
    Point(
        name="writing-an-index",
        module=_STORAGE,
        functions=PUTS_NEW,
        when="before",
        process="driver",
        passage=2,
        argument=r"/index/\d+\.parquet$",
    ),
    Point(  # the parts are there, latest.json does not name them yet
        name="amid-compaction",
        module=_STORAGE,
        functions=PUTS,
        when="before",
        process="driver",
        phase="end",
        argument=r"^metadata/latest\.json$",
    ),
    Point(
        name="before-run-json",
        module=_STORAGE,
        functions=PUTS_NEW,
        when="before",
        process="driver",
        phase="end",
        argument=r"/run\.json$",
    ),
)


def senseless(point: Point, victim: Victim, store: str) -> str | None:
    """Say why a victim cannot be struck at a point, or None when it can."""
    if victim == "s3" and store == "local":
        return "a local campaign has no S3 server"
    if point.name == "amid-a-file" and store == "s3":
        return "an object is put by one request; there is no file before it"
    if point.phase == "start" and victim in {"worker", "raylet", "cluster"}:
        return "the cluster is not started yet; the driver is struck here"
    if point.phase == "end" and victim in {"worker", "raylet", "cluster"}:
        return "the cluster is shut down already; the driver is struck here"
    return None


def kills() -> Iterator[tuple[Point, Victim, str]]:
    """Yield every kill that makes sense."""
    for store in STORES:
        for point in POINTS:
            for victim in VICTIMS:
                if senseless(point, victim, store) is None:
                    yield point, victim, store
