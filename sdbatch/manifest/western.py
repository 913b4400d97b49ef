"""Whether text that was read as cp1252 has words that a western European language could have.

a text --> strange_word() --> its first word that no such language has, or None

The same bytes are other letters in the code pages of central Europe, Turkey and the Baltic: "červený" is read as
"èervený", and nothing but the words themselves tells. Strange is a word with letters of several languages, and one with
a letter where its language never has it.
"""

from __future__ import annotations

import re
from typing import Final

_LOANED: Final = "éèêàâçôñïë"
"""Letters that come with French and Spanish words, as in `Hüttencafé`."""
_LANGUAGES: Final = (
    f"[a-zäöüß{_LOANED}]+",  # German
    f"[a-zåäöüšž{_LOANED}]+",  # Swedish, Finnish
    f"[a-zæøåäöü{_LOANED}]+",  # Danish, Norwegian
    "(?:[a-zàâæçéèêëîïôœûüÿ]|ù$)+",  # French
    "[a-zàáèéíïòóúüçñ]+(?:[ªº]s?)?",  # Spanish, Catalan
    "(?:[a-zàèéíîòóú]|[ìù]$)+",  # Italian
    "(?:[a-zàáâçéêíóôúü]|ã(?=[oeizsm]|$)|õ(?=e))+",  # Portuguese
    "[a-záéèëêíïóöúüç]+",  # Dutch
    "(?:[abd-pr-vxyáéíóúýæöð]|þ(?=[aeiouyáéíóúýæöjrv]))+",  # Icelandic
    "(?:[a-zäöüšž]|õ(?!$))+",  # Estonian
    "[ªº]",  # after a number
)
_ONE_OF_THEM: Final = re.compile("|".join(f"(?:{words})" for words in _LANGUAGES))
_NOWHERE: Final = re.compile("è(?!i[ex])[aeiou]")
"""`dèiem` and `conèixer` are Catalan; elsewhere it is the `č` of Slovene, Croatian or Czech."""
_WORD: Final = re.compile("(?<![^\\W\\d_])[^\\W\\d_]*[ªºÀ-ÖØ-öø-ÿŒœŠšŸŽž][^\\W\\d_]*")


def strange_word(text: str) -> re.Match[str] | None:
    """Return the first word that no western European language could have."""
    known: set[str] = set()
    for found in _WORD.finditer(text):
        word = found[0].lower()
        if word in known:
            continue
        if _NOWHERE.search(word) or not _ONE_OF_THEM.fullmatch(word):
            return found
        known.add(word)
    return None
