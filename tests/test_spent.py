"""The line of a run's summary that says what it took, and how far its forecast was from that."""

from __future__ import annotations

from typing import Any

import pytest

from sdbatch.cli.money import spent_line
from sdbatch.driver.one_run.records import RunResult

MODEL = {"outputs": 8, "forecast_s": 30.0, "actual_s": 40.0, "error": -0.25}


@pytest.mark.parametrize(
    ("forecast", "said"),
    [
        (
            {"models": {"tiny": MODEL}, "basis": {"measured": 0.5, "rate": 0.0, "assumed": 0.5}},
            "workers took 60.0 GPU seconds; tiny: 40 s in the model, 30 s were forecast (25% too low)",
        ),
        (
            {"models": {"tiny": MODEL}, "basis": {"measured": 0.0, "rate": 0.0, "assumed": 1.0}},
            "workers took 60.0 GPU seconds; tiny: 40 s in the model; no forecast, as nothing was measured before",
        ),
        ({"models": {}, "basis": {"measured": 0.0, "rate": 0.0, "assumed": 1.0}}, "workers took 60.0 GPU seconds"),
    ],
)
def test_a_forecast_is_compared_where_something_had_been_measured(forecast: dict[str, Any], said: str) -> None:
    result = RunResult(
        run_id="r000001",
        output="out",
        state="done",
        exit_code=0,
        counts={},
        failures={},
        wall_s=1.0,
        gpu_hours=60 / 3600,
        forecast=forecast,
    )

    assert spent_line(result) == said
