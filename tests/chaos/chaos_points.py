"""Where a run is struck, and what is struck there: literal tables.

    POINTS x VICTIMS x STORES - SENSELESS = the kills of `make chaos`

A point is one of `sdbatch.points`; a name that is not there fails its cases (see inject/sitecustomize.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Victim = Literal["worker", "driver", "raylet", "cluster", "s3"]
VICTIMS: tuple[Victim, ...] = ("worker", "driver", "raylet", "cluster", "s3")
STORES = ("local", "s3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A moment of a run.

    Attributes:
        name: Its name in `sdbatch.points`.
        process: Which process passes here.
        phase: `start` (before the cluster), `work` (workers are there) or `end` (the cluster is shut down again).
        passage: Which passage of one process counts, from 1; only those while the victim is there.
    """

    name: str
    process: Literal["worker", "driver"]
    phase: Literal["start", "work", "end"] = "work"
    passage: int = 1


POINTS: tuple[Point, ...] = (
    Point(name="after-taking-the-lease", process="driver", phase="start"),
    Point(name="before-writing-the-plan", process="driver", phase="start"),
    Point(name="before-load", process="worker"),
    Point(name="after-load", process="worker"),
    Point(name="after-fetch", process="worker", passage=3),
    Point(name="mid-denoise", process="worker", passage=4),  # two steps a batch: the second step of the second batch
    Point(name="after-generate", process="worker", passage=2),
    Point(name="after-encode", process="worker", passage=6),
    Point(name="between-two-assets", process="worker", passage=6),  # batches of four: the second unit's second asset
    Point(name="amid-a-file", process="worker", passage=7),
    Point(name="before-the-commit", process="worker", passage=2),
    Point(name="after-the-commit", process="worker", passage=2),
    Point(name="lease-renewal", process="driver"),
    Point(name="writing-status", process="driver", passage=2),
    Point(name="writing-an-index", process="driver", passage=2),
    Point(name="amid-compaction", process="driver", phase="end"),
    Point(name="before-run-json", process="driver", phase="end"),
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
