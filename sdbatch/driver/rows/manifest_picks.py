"""A selection over a manifest that streams by: an expression sees each row's own values, else the job's defaults.

    shards --> ManifestPicks.begin()        RowBatch --> add() --> picked()

What neither the row nor the job says is null here; what a model's family would put there is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdbatch.columns import MANIFEST
from sdbatch.driver.picking import Picker, Selection, values_of
from sdbatch.job import Job
from sdbatch.manifest.read import RowBatch, Shard
from sdbatch.where import MANIFEST_KINDS, Kind, kind_of

MODEL = "model"


class ManifestPicks:
    """Looks at the rows of one manifest.

    Args:
        job: Its defaults stand where a row says nothing, as they do when the row is made.
        selection: Which rows are meant.
    """

    def __init__(self, job: Job, selection: Selection) -> None:
        self._selection = selection
        self._picker: Picker | None = None
        self._defaults = dict(job.defaults)
        self._of_models = {name: dict(model.defaults) for name, model in job.models.items()}
        self._only_model = next(iter(job.models)) if len(job.models) == 1 else None

    def begin(self, shards: Iterable[Shard]) -> None:
        """Understand the expression, once the manifest's own columns are known.

        Raises:
            WhereRefused, JobError: When it names a column that is not there, or compares what cannot be compared.
        """
        own: dict[str, Kind] = {}
        for shard in shards:
            for name, kind in shard.own.items():
                if own.get(name, "null") == "null":
                    own[name] = kind_of(kind)
        self._picker = Picker(self._selection, {**MANIFEST_KINDS, **own}, "the manifest")

    def add(self, batch: RowBatch) -> None:
        """Look at some more rows."""
        assert self._picker is not None, "the manifest was begun"
        self._picker.add(lambda name: self._column(name, batch), batch.num_rows)

    def picked(self) -> NDArray[np.bool_]:
        """Return for each row of the manifest whether it is meant.

        Raises:
            JobError: When the selection names an id that no row has, or a glob that none fits.
        """
        assert self._picker is not None, "the manifest was begun"
        return self._picker.picked()

    def _column(self, name: str, batch: RowBatch) -> Sequence[Any]:
        if name in batch.own.column_names:
            return values_of(batch.own.column(name))
        values: Sequence[Any] = batch.columns.get(name) or [None] * batch.num_rows
        if MANIFEST_KINDS.get(name) == "texts":  # where a column holds plain texts, each is a list of one
            values = [[value] if isinstance(value, str) else value for value in values]
        if name not in MANIFEST or None not in values:
            return values
        if name == MODEL:
            last = self._defaults.get(MODEL) or self._only_model
            return [last if value is None else value for value in values]
        last = self._defaults.get(name)
        last = MANIFEST[name].default if last is None else last
        of_models = {model: own[name] for model, own in self._of_models.items() if own.get(name) is not None}
        if not of_models:
            return values if last is None else [last if value is None else value for value in values]
        models = self._column(MODEL, batch)
        return [_first(value, of_models, model, last) for value, model in zip(values, models, strict=True)]


def _first(value: Any, of_models: Mapping[str, Any], model: Any, last: Any) -> Any:
    return of_models.get(model, last) if value is None else value
