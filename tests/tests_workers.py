"""Workers without a model, for the dispatcher's tests: a request's id says what becomes of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from sdbatch.errors import ModelLoadFailed, StoreUnavailable
from sdbatch.types import Receipt, RowOutcome, Unit, WorkerSpec


class ScriptedWorker:
    """Ends units as their ids say.

    `die...` ends the process, `die-once...` the first time only, `busy...` meets an unavailable store once, `bug...`
    raises, `unloadable...` cannot load its model, `slow...` takes a second. What is to happen once is remembered by
    files in the folder that stands for the campaign.
    """

    def __init__(self, name: str, spec: WorkerSpec) -> None:
        self._name = name
        self._folder = Path(spec.output)

    def start(self) -> dict[str, str]:
        """Take a moment, as an import does."""
        return {"pid": str(os.getpid())}

    def run_unit(self, unit: Unit) -> Receipt:
        """End a unit."""
        for request in unit.requests:
            self._meet(request.id)
        outcomes = tuple(
            RowOutcome(id=request.id, request_key=request.request_key, n=n, status="ok")
            for request in unit.requests
            for n in request.outputs
        )
        (self._folder / "log").open("a").write(f"{unit.id} {self._name} {unit.model}\n")
        return Receipt(
            unit=unit.id,
            worker=self._name,
            outcomes=outcomes,
            model_calls=1,
            rows_generated=len(outcomes),
            assets_put=len(outcomes),
            assets_adopted=0,
            asset_bytes=0,
            generate_s=0.01 * len(outcomes),
            load_s=0.0,
            batch_size=len(outcomes),
        )

    def _meet(self, request_id: str) -> None:
        kind = request_id.rpartition("-")[0]
        if kind == "die" or (kind == "die-once" and self._is_first(request_id)):
            os._exit(17)
        if kind == "busy" and self._is_first(request_id):
            raise StoreUnavailable("the store does not answer")
        if kind == "bug":
            raise KeyError("a mistake of ours")
        if kind == "unloadable":
            raise ModelLoadFailed("a weight is missing")
        if kind == "slow":
            time.sleep(1.0)

    def _is_first(self, request_id: str) -> bool:
        try:
            (self._folder / f"met-{request_id}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True
