"""What MkDocs calls while it builds: pages that are read from a disk take their search's one script from this folder.

The theme names it on a public server. `docs/assets/iframe-worker.js` is that file: iframe-worker 1.0.4, MIT,
(c) 2020-2022 Martin Donath; its licence lies beside it.
"""

from __future__ import annotations

from typing import Any, Final

THEIRS: Final = "https://unpkg.com/iframe-worker/shim"
OURS: Final = "assets/iframe-worker.js"


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Return a page that names our copy, relative to itself."""
    del config
    up = "../" * page.url.count("/")
    return output.replace(f'src="{THEIRS}"', f'src="{up}{OURS}"')


def on_post_template(output_content: str, *, template_name: str, config: Any) -> str:
    """Return a page that is none of ours, such as the one that is shown for a page that is not there."""
    del template_name, config
    return output_content.replace(f'src="{THEIRS}"', f'src="{OURS}"')
