"""The short part of `make fuzz`: a hundredth of it, and that a fault would be seen."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rows
import run_fuzz
import sources
from sources import damaged, fuzz_clips, fuzz_pictures, whole_pictures

from sdbatch.fetch.bounded.decoder import BoundedDecoder


@pytest.mark.fault("S6", "500 pictures, nine in ten damaged", "pixels or a refusal of that file; no other is blamed")
def test_damaged_pictures_cost_their_own_rows_alone() -> None:
    found = fuzz_pictures(run_fuzz.FULL["pictures"] // 100)

    assert found.faults == []
    assert found.answers["refused: SourceUnreadable"] > 100
    assert found.answers["decoded"] > 20


@pytest.mark.fault("S6", "clips, nine in ten damaged", "frames or a refusal of that very file; no other is blamed")
def test_damaged_clips_cost_their_own_rows_alone() -> None:
    found = fuzz_clips(run_fuzz.FULL["clips"] // 100)

    assert found.faults == []
    assert sum(found.answers.values()) == run_fuzz.FULL["clips"] // 100


def test_equal_seeds_damage_alike() -> None:
    one, two = (random.Random("1:7") for _ in range(2))
    data, other = whole_pictures()[:2]

    assert damaged(one, data, other) == damaged(two, data, other) != data


def test_a_sound_file_that_is_not_decoded_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def decode(self: BoundedDecoder, wanted: Any, settings: Any, read: Callable[[Any], bytes]) -> Any:
        nonlocal calls
        calls += 1
        is_spoiled = calls > len(whole_pictures()) and calls % 2
        return original(self, wanted, settings, (lambda _: b"not a picture") if is_spoiled else read)

    original = BoundedDecoder.decode
    monkeypatch.setattr(BoundedDecoder, "decode", decode)
    monkeypatch.setattr(sources, "SOUND_EVERY", 1)
    found = fuzz_pictures(40)

    assert [fault for fault in found.faults if "a sound file gave" in fault]


def test_rows_of_chance_are_what_plain_diffusers_makes_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num_compared, faults = rows.compare_rows(run_fuzz.FULL["rows"] // 100, tmp_path / "one", 1)

    assert faults == []
    assert num_compared >= run_fuzz.FULL["rows"] // 100
    by_hand = rows._by_hand
    monkeypatch.setattr(rows, "_by_hand", lambda *arguments: 1 - by_hand(*arguments))
    _, seen = rows.compare_rows(1, tmp_path / "other", 1)
    assert "differs from" in seen[0]
