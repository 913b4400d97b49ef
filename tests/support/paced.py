"""A worker without a model that takes as long as its outputs' width and steps say, and commits them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from sdbatch.campaign.write import put_commit, receipt_of, request_columns
from sdbatch.job import parse_job
from sdbatch.recipe import Recipe, parse_recipe
from sdbatch.storage import open_campaign
from sdbatch.types import OnCall, Receipt, Running, Unit, WorkerSpec

STEP_S = 0.005
"""Seconds of a step of one output of 64 pixels."""


def output_s(recipe: Recipe) -> float:
    """Return the seconds of one output."""
    return STEP_S * recipe.num_inference_steps * recipe.width / 64


class PacedWorker:
    """Sleeps instead of rendering; what it says and commits of it is exact."""

    LOAD_S = 0.0
    SLEEP: Callable[[float], None] = time.sleep

    def __init__(self, name: str, spec: WorkerSpec, on_call: OnCall = lambda *_: None) -> None:
        self._name = name
        self._spec = spec
        self._model = threading.Lock()
        self._store = open_campaign(spec.output, parse_job(spec.job).storage, is_reached=True)

    def prepare_process(self) -> None:
        """Nothing here depends on the process."""

    def start(self) -> dict[str, str]:
        """Be ready at once, on a device that has a name."""
        return {"GPU": "a paced device"}

    def run_unit(self, unit: Unit) -> Receipt:
        """Take the time of a unit, and commit it."""
        seconds = [output_s(parse_recipe(request.recipe)) for request in unit.requests for _ in request.outputs]
        with self._model:
            self.SLEEP(sum(seconds))
        rows = [
            {
                **request_columns(request, parse_recipe(request.recipe), n),
                "status": "ok",
                "adopted": False,
                "denoise_s": output_s(parse_recipe(request.recipe)),
                "decode_s": 0.0,
                "batch_size": 1,
                "worker": self._name,
            }
            for request in unit.requests
            for n in request.outputs
        ]
        put_commit(self._store, self._spec.run_id, unit.id, rows)
        return replace(receipt_of(unit.id, self._name, rows), load_s=self.LOAD_S)

    def running(self) -> tuple[Running, ...]:
        """Say nothing: no unit here takes long."""
        return ()


def simulate(set_attribute: Callable[[Any, str, Any], None] = setattr) -> None:
    """Let time pass for a run in this process while its worker sleeps, and at no other: no machine is too busy then."""
    from sdbatch.dispatch.dispatcher import Dispatcher
    from sdbatch.driver.one_run import session  # not for the workers of a cluster, which start sooner without it

    now_s = [0.0]

    def sleep(seconds: float) -> None:
        now_s[0] += seconds

    set_attribute(PacedWorker, "SLEEP", staticmethod(sleep))
    set_attribute(session, "Dispatcher", partial(Dispatcher, clock=lambda: now_s[0]))
