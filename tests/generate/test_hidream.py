"""HiDream-I1, real classes at toy size: its fourth text encoder lies elsewhere, and a row's size is the row's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from support.toy_newer import make_tiny_hidream
from support.toy_parts import loaded, pixels_of


def test_the_encoder_that_its_folder_does_not_hold_is_laid_over_it(tmp_path: Path) -> None:
    whole, bare = tmp_path / "whole", tmp_path / "bare"
    make_tiny_hidream(whole)
    bare.mkdir()
    others = ("model_index.json", "text_encoder_4", "tokenizer_4")
    for entry in whole.iterdir():
        if entry.name not in others:
            (bare / entry.name).symlink_to(entry)
    index = json.loads((whole / "model_index.json").read_text())
    without = {name: [None, None] for name in others[1:]}
    (bare / "model_index.json").write_text(json.dumps({**index, **without}))
    recipe: dict[str, Any] = {"route": "HiDreamImagePipeline", "guidance_scale": 5.0, "height": 48, "width": 96}
    components = {name: {"path": str(whole / name)} for name in others[1:]}
    ours = pixels_of(loaded({"path": str(bare), "components": components}), **recipe)

    assert ours.shape[1:3] == (48, 96)
    assert np.array_equal(ours, pixels_of(loaded({"path": str(whole)}), **recipe))
