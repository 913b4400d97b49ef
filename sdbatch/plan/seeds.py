"""Seeds of rows that name none: they follow from the job's seed and the row's name, never from order or time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

DERIVED_SEED_BITS = 53
"""Derived seeds stay exact in JSON readers that know only doubles."""


def row_seeds(
    root: int, ids: Sequence[str], seeds: Sequence[int | None], groups: Sequence[str | None]
) -> Sequence[int]:
    """Return each row's seed: its own, else one derived from its `seed_group`, else from its id."""
    if seeds.count(None) == len(seeds) == groups.count(None):
        return derived_seeds(root, ids)
    names = [group or row_id for row_id, seed, group in zip(ids, seeds, groups, strict=True) if seed is None]
    derived = iter(derived_seeds(root, names))
    return [next(derived) if seed is None else seed for seed in seeds]


def derived_seeds(root: int, names: Iterable[str]) -> list[int]:
    """Return the seeds of rows that name none: the first 53 bits of sha256(root ":" name) each.

    Args:
        root: The job's seed.
        names: Each row's `seed_group`, else its id.
    """
    sha256, listed = hashlib.sha256, list(names)
    head = f"{root}:"
    texts = f"\n{head}".join(["", *listed]).encode().split(b"\n")[1:]
    if len(texts) != len(listed):  # a name with a line break, which the check of the row's texts refuses
        texts = [f"{head}{name}".encode() for name in listed]
    digests = b"".join([sha256(text).digest() for text in texts])
    seeds: list[int] = (np.frombuffer(digests, ">u8")[::4] >> (64 - DERIVED_SEED_BITS)).tolist()
    return seeds
