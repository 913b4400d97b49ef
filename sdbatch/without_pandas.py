"""Arrow without pandas, in processes that are ours alone.

At its first value from Python, Arrow imports pandas where that is installed: a third of a second and 35 MiB of every
command and worker, none of which has a use for it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Final

import pyarrow as pa

PANDAS: Final = "pandas"


class _Hidden:
    """Says, where Python looks for a module, that there is no pandas."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: ModuleType | None = None) -> None:
        if name == PANDAS:
            raise ModuleNotFoundError(f"no module is called {name!r} while Arrow looks for it", name=name)


def keep_pandas_out() -> None:
    """Let Arrow find no pandas, now and later; whoever else imports it finds it.

    It is for a process of our own: `pyarrow.array` of a pandas Series means something else afterwards. Where pandas is
    imported already, it does nothing.
    """
    if PANDAS in sys.modules:
        return
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([])  # Arrow looks once in the life of a process
    finally:
        sys.meta_path.remove(hidden)
