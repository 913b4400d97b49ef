"""What a caller gave, compared with the types that a function or a value states.

arguments + annotations --> pydantic --> the function; JobError with name, value and bound
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import cache, wraps
from types import SimpleNamespace
from typing import Annotated, Any, Final, ParamSpec, TypeVar, get_type_hints

import numpy as np
import pyarrow as pa
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from sdbatch.errors import JobError

SHOWN_CHARACTERS_MAX: Final = 80
"""Characters of a value that a message shows."""

Count = Annotated[int, Field(ge=1)]
"""A number of things, at least one."""

_Taken = ParamSpec("_Taken")
_Returned = TypeVar("_Returned")


def refuses_other_types(function: Callable[_Taken, _Returned]) -> Callable[_Taken, _Returned]:
    """Let a function refuse what it does not take, as its annotations say it."""
    signature = inspect.signature(function)

    @wraps(function)
    def checked(*args: _Taken.args, **kwargs: _Taken.kwargs) -> _Returned:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # Python's own refusal names the function as well
        bound.arguments.update(taken(function, bound.arguments))
        return function(*bound.args, **bound.kwargs)

    return checked


def taken(owner: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as a function or a class takes them that states a type for each of their names.

    A number of numpy, a value of Arrow and a row of a pandas table are taken for Python's.

    Raises:
        JobError: When one is of another type.
    """
    plain = {name: _plain(value) for name, value in values.items()}
    for name, value in plain.items():
        try:
            _adapters(owner)[name].validate_python(value, strict=True)
        except ValidationError as error:
            raise JobError(_explained(name, value, error)) from error
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, pa.Scalar):
        return value.as_py()
    pandas = sys.modules.get("pandas")  # whoever hands over a row of its tables has imported it
    is_row = pandas is not None and isinstance(value, pandas.Series) and value.index.inferred_type == "string"
    return value.to_dict() if is_row else value


def _explained(name: str, value: Any, error: ValidationError) -> str:
    problems = error.errors()  # several where the value may be of one of several types
    inner = next((one for one in problems if one["input"] is not value), None)
    if inner is not None:  # what stands under one key of a mapping
        name, value, problems = f"{name}[{inner['loc'][0]!r}]", inner["input"], [inner]
    shown = " ".join(repr(value).split())  # a table has lines
    if len(shown) > SHOWN_CHARACTERS_MAX:
        shown = f"{shown[:SHOWN_CHARACTERS_MAX]}..."
    bounds = dict.fromkeys(one["msg"].removeprefix("Input should be ") for one in problems)
    return f"{name} {shown}: should be {' or '.join(bounds)}"


@cache
def _adapters(owner: Any) -> dict[str, TypeAdapter[Any]]:
    """Return what knows each stated type, by name; made at the first call, so that an import takes no longer."""
    # What a function returns may be a class that only a type checker imports.
    stated = SimpleNamespace(
        __annotations__={key: hint for key, hint in owner.__annotations__.items() if key != "return"}
    )
    hints = get_type_hints(stated, vars(sys.modules[owner.__module__]), include_extras=True)
    return {name: TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)) for name, hint in hints.items()}
