"""Fingerprints: the same after other sizes and encoders, none of what shows nothing."""

from __future__ import annotations

import numpy as np
from PIL import Image
from support.masters import noise

from sdbatch.deliver.stills import small_gray
from sdbatch.provenance.fingerprint import BITS_APART_MAX, bits_apart, fingerprint


def _of(image: Image.Image) -> str:
    return fingerprint(small_gray(image))


def test_a_picture_has_the_fingerprint_of_its_smaller_self_and_not_of_another() -> None:
    image, other = (Image.fromarray(noise(256, 192, number)) for number in range(2))
    smaller = image.resize((100, 75), Image.Resampling.BICUBIC)
    others = np.array([int(_of(one), 16) for one in (image, other)], np.uint64)
    apart = bits_apart(_of(smaller), others)

    assert len(_of(image)) == 16
    assert apart[0] <= 4
    assert apart[1] > BITS_APART_MAX


def test_what_is_all_of_one_brightness_has_none() -> None:
    assert _of(Image.new("RGB", (64, 64), (9, 90, 30))) == ""
    assert _of(Image.new("RGB", (64, 64))) == ""
    assert _of(Image.fromarray(noise(64, 64))) != ""
