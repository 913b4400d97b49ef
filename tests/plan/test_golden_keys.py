"""Keys that must not move: an option added later leaves every older request its key."""

from __future__ import annotations

import json
from pathlib import Path

from support.golden_rows import golden_keys

STORED = Path(__file__).with_name("golden_keys.json")


def test_no_key_moves() -> None:
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    keys = golden_keys()

    assert {name: keys.get(name) for name in stored} == stored, "support/golden_rows.py says when keys may move"
    assert keys.keys() == stored.keys(), "new routes are added by support/golden_rows.py"
