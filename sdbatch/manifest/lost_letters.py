"""Letters that were lost on the way into a table, and that a model would be given as they stand.

text of a prompt --> lost_letters() --> the place where it shows, or None

Excel saves `?` for what its encoding lacks (`k?ln`, `??? ?????`), a reader that goes on over broken bytes leaves `�`,
and UTF-8 that was read as cp1252 and saved again has two signs for one letter (`kÃ¶ln`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

MESSAGE: Final = "has letters that were lost where the table was saved; save it as UTF-8 (in Excel: CSV UTF-8)"
_SIGNS: Final = "?ÃÂâðã�"
"""One of these begins what shows that letters were lost; single signs are found many times faster than several."""
_LOST: Final = re.compile(
    rf"[{_SIGNS}](?:(?<=[^\W\d_]\?)[^\W\d_]"  # a question mark inside a word
    r"|(?<=\?)(?<!\S\?)\?"  # a word of question marks
    r"|(?<=Ã)[¡-¿Ÿ]|(?<=Â)[¡-¿]|(?<=â)€|(?<=ð)Ÿ|(?<=ã)[\u201aƒ]"  # UTF-8, read as cp1252
    r"|(?<=�))"
)
_AROUND: Final = 12


def lost_letters(text: str) -> str | None:
    """Return what stands where letters were lost, None where none were."""
    found = _LOST.search(text)
    return None if found is None else text[max(found.start() - _AROUND, 0) : found.end() + _AROUND]


def may_lack_letters(texts: Sequence[str | None]) -> bool:
    """Whether letters of some texts may be lost; one look at all of them is faster than a look at each."""
    every = "\n".join(filter(None, texts))
    return any(sign in every for sign in _SIGNS)
