"""Write the generated pieces of the documentation anew: `make reference`."""

from __future__ import annotations

import sys

from docs.generator.pages import DOCS, pages, with_pieces
from docs.generator.pieces import PIECES

for page in pages():
    text = page.read_text(encoding="utf-8")
    current = with_pieces(text, PIECES)
    if current != text:
        page.write_text(current, encoding="utf-8")
        sys.stdout.write(f"docs/{page.relative_to(DOCS)}\n")
