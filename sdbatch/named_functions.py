"""Functions that a job or a delivery names, as `module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from sdbatch.errors import JobError


def function_of(call: str, key: str) -> Callable[..., Any]:
    """Return the function that `module:function` names; its module is imported.

    Args:
        call: Module and function.
        key: Of the file that names it, for messages.

    Raises:
        JobError: When there is none, or its module cannot be imported.
    """
    module, _, name = call.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise JobError(f"{key}: {call}: {error}") from error
    except Exception as error:  # whatever a stranger's module raises while it is imported is told by its name
        raise JobError(f"{key}: {call}: {module} raised {type(error).__name__}: {error}") from error
    if not callable(found):
        raise JobError(f"{key}: {call} is of type {type(found).__name__}, no function")
    return found  # type: ignore[no-any-return]
