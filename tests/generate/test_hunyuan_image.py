"""HunyuanImage 2.1, real classes at toy size: guidance is a component, and words to be written choose another one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.toy_newer import make_tiny_hunyuan_image
from support.toy_parts import loaded, pixels_of

from sdbatch.checkpoints import describe
from sdbatch.errors import ModelError
from sdbatch.families import FAMILIES
from sdbatch.job import Model


def test_guidance_of_a_row_reaches_the_guider_that_its_prompt_chooses(tmp_path: Path) -> None:
    make_tiny_hunyuan_image(tmp_path)
    model = loaded({"path": str(tmp_path)})
    for prompt in ("a town", 'a sign that says "open"'):
        low, high, again = (
            pixels_of(model, route="HunyuanImagePipeline", prompt=prompt, guidance_scale=scale)
            for scale in (2.0, 6.0, 2.0)
        )
        assert np.abs(low - high).max() > 2 / 255, f"guidance moves nothing of {prompt!r}"
        assert np.array_equal(low, again), "the guidance of an earlier row stays"


@pytest.mark.parametrize("lack", [{}, {"guider": [None, None]}], ids=["left out", "null"])
def test_a_folder_without_its_guider_is_refused_by_name(lack: dict[str, list[None]], tmp_path: Path) -> None:
    """The pipeline would make every picture unguided, whatever the row says."""
    make_tiny_hunyuan_image(tmp_path)
    assert describe("m", Model(path=str(tmp_path)), {}).family is FAMILIES["HunyuanImage 2.1"]
    file = tmp_path / "model_index.json"
    index = json.loads(file.read_text())
    del index["guider"]
    file.write_text(json.dumps({**index, **lack}))

    with pytest.raises(ModelError, match=r"is a HunyuanImagePipeline with no model_index.json guider, which is not"):
        describe("m", Model(path=str(tmp_path)), {})


def test_the_distilled_model_has_no_guider(tmp_path: Path) -> None:
    make_tiny_hunyuan_image(tmp_path, is_distilled=True)

    assert describe("m", Model(path=str(tmp_path)), {}).family is FAMILIES["HunyuanImage 2.1 distilled"]
