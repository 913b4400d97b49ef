"""Pictures and recipes of the gallery, packed into files that the page loads when it shows them.

    bytes or text --> Packer.add() --> ref            64 of them --> thumbs/<digest>.js

A page that is opened from a disk may load no data but scripts, and a file for each picture would be too many.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

ITEMS_MAX: Final = 64
"""Items of a pack; a ref holds the place in the lowest `PLACE_BITS` bits and the pack's number above them."""
PLACE_BITS: Final = 6
BYTES_MAX: Final = 1 << 20
_REMEMBERED_MAX: Final = 512
"""Items that are known again, because many pictures are made from one source."""

Put = Callable[[str, bytes], None]
"""Writes a file of the gallery."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """A kind of packs.

    Attributes:
        folder: In the gallery.
        encode: Writes the items as a JavaScript array.
    """

    folder: str
    encode: Callable[[list[bytes]], str]


def _pictures(items: Iterable[bytes]) -> str:
    return '["' + '","'.join(base64.b64encode(item).decode() for item in items) + '"]'


def _texts(items: Iterable[bytes]) -> str:
    return script_literal([item.decode() for item in items])


PACKS: Final = (
    Pack(folder="thumbs", encode=_pictures),
    Pack(folder="sources", encode=_pictures),
    Pack(folder="recipes", encode=_texts),
)


class Packer:
    """Packs the items of one kind.

    Args:
        pack: The kind.
        put: Writes a pack.
    """

    def __init__(self, pack: Pack, put: Put) -> None:
        self._pack = pack
        self._put = put
        self._items: list[bytes] = []
        self._num_bytes = 0
        self._number = 0
        self._known: dict[bytes, int] = {}
        self.names: dict[int, str] = {}

    def add(self, item: bytes | None) -> int:
        """Return the ref of an item, -1 for none."""
        if item is None:
            return -1
        if (known := self._known.get(item)) is not None:
            return known
        if len(self._items) == ITEMS_MAX or self._num_bytes + len(item) > BYTES_MAX:
            self.flush()
        ref = self._number << PLACE_BITS | len(self._items)
        self._items.append(item)
        self._num_bytes += len(item)
        if len(self._known) >= _REMEMBERED_MAX:
            self._known.pop(next(iter(self._known)))
        self._known[item] = ref
        return ref

    def flush(self) -> None:
        """Write the items that wait."""
        if not self._items:
            return
        body = self._pack.encode(self._items)
        name = f"{self._pack.folder}/{digest_of(body)}"
        self._put(f"{name}.js", f'sdbatch.pack("{name}",{body});\n'.encode())
        self.names[self._number] = name
        self._number += 1
        self._items, self._num_bytes = [], 0


def digest_of(text: str) -> str:
    """Return the name that a file has by its content."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def script_literal(value: object) -> str:
    """Return a list of texts, or a text, as it may stand in a script, wherever that script is read."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
