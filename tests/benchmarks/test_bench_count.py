"""The count of a published architecture is what the table of families has."""

from __future__ import annotations

import pytest
from conftest import long_but

from benchmarks.count import counted, main
from benchmarks.published import PUBLISHED
from sdbatch.families import FAMILIES
from sdbatch.families.peaks import peaks_of

COUNTED = (
    "Chroma",
    "Flux.2 dev",
    "Kandinsky 5 I2I",
    "Kandinsky 5 T2V",
    "Stable Diffusion XL Refiner",
    "Stable Diffusion x4 Upscaler",
)


@pytest.mark.parametrize("title", long_but({"Flux.2 dev", "Kandinsky 5 T2V"}, COUNTED))
def test_work_and_parameters_of_a_family_are_those_of_its_published_model(title: str) -> None:
    (published,) = (one for one in PUBLISHED if title in one.titles)
    count, family = counted(published), FAMILIES[title]

    assert family.parameters_reference == count.parameters
    assert family.tflop_reference * count.pixels / family.pixels_reference == pytest.approx(count.tflop, rel=0.01)
    peaks = peaks_of(title, count.parameters)
    assert peaks is not None
    assert peaks.parameters == count.parameters


def test_an_unknown_family_is_told_which_there_are() -> None:
    with pytest.raises(SystemExit, match=r"published architectures are at hand of .*Chroma, "):
        main(["Chromatic"])
