"""How a run stands and how it ended, in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from sdbatch.driver.one_run.records import RunResult
from sdbatch.report.progress import duration, per_time

ENDED = {
    "done": "done",
    "failed": "ended, with rows that failed,",
    "stopped": "stopped",
    "interrupted": "interrupted",
    "cancelled": "cancelled",
}
MESSAGE_CHARS = 160
"""Characters of a failure's message that a line shows."""


def summary_lines(result: RunResult, spent: str = "") -> Iterator[str]:
    """Yield how a run ended: what became of its files and rows, where the campaign stands, what was spent.

    Args:
        result: The run.
        spent: What it took in GPU hours and money, in words; "" where nobody knows.
    """
    counts = Counter(result.counts)
    made = max(counts["assets_put"] + counts["assets_adopted"] - counts["assets_copied"], 0)
    yield f"{result.run_id} {ENDED.get(result.state, result.state)} after {duration(result.wall_s)}"
    parts = [counted(made, "file", "files") + " made"]
    if counts["assets_copied"]:
        parts.append(f"{counts['assets_copied']} copied")
    parts.append(counted(counts["rows_reused"], "row", "rows") + " kept")
    parts.append(f"{counts['rows_failed']} failed")
    if counts["rows_withdrawn"]:
        parts.append(f"{counts['rows_withdrawn']} withdrawn")
    if result.campaign:
        parts.append(f"{result.campaign['open']} left")
    yield ", ".join(parts)
    if spent:
        yield spent
    if result.campaign:
        yield f"campaign: {campaign_words(result.campaign)}"


def campaign_words(campaign: Mapping[str, int]) -> str:
    """Return where the rows of a campaign's manifest stand."""
    return f"{campaign['made']} of {campaign['rows']} made, {campaign['failed']} failed, {campaign['open']} open"


def failure_lines(result: RunResult) -> Iterator[str]:
    """Yield the first rows that failed, and how to see the others."""
    for failure in result.first_failures:
        yield failure_line(failure)
    others = sum(result.failures.values()) - len(result.first_failures)
    if others > 0:
        yield f"... and {others} more: sdbatch failures {result.output}"


def failure_line(failure: Mapping[str, Any]) -> str:
    """Return a failure as one line."""
    message = " ".join(str(failure["error_message"] or "").split())
    shown = message if len(message) <= MESSAGE_CHARS else f"{message[:MESSAGE_CHARS]}..."
    place = "" if failure["n"] is None else f" (output {failure['n']})"
    return f"{failure['id']}{place}: {failure['error_type']}: {shown}"


def status_lines(latest: Mapping[str, Any]) -> Iterator[str]:
    """Yield where a campaign and its newest run stand."""
    if latest.get("campaign"):
        yield f"campaign: {campaign_words(latest['campaign'])}"
    counts = latest["counts"]
    made = counted(counts["rows_ok"], "row", "rows")
    own = f"{made} made, {counts['rows_reused']} kept, {counts['rows_failed']} failed"
    if waiting := counts.get("rows_waiting"):
        own += f", {waiting} waiting for outputs that were not there"
    gone = "; its driver is gone, run again to go on" if latest["state"] == "dead" else ""
    yield f"{latest['run_id']} {latest['state']}: {own}{_pace(latest)} (as of {latest['updated_at']}){gone}"
    if latest["state"] == "running":
        yield from (f"waiting for a worker: {text}" for text in latest.get("waits_for") or ())


def watch_line(latest: Mapping[str, Any]) -> str:
    """Return where a campaign and its newest run stand, as one line."""
    counts = latest["counts"]
    made = counts["rows_ok"] + counts["rows_reused"]
    campaign = latest.get("campaign")
    words = campaign_words(campaign) if campaign else f"{made} of {latest['rows']} made, {counts['rows_failed']} failed"
    waits = latest.get("waits_for") or ()
    waiting = f"; waiting for a worker: {waits[0]}" if latest["state"] == "running" and waits else ""
    at = str(latest["updated_at"])[11:19]
    return f"{latest['run_id']} {latest['state']}: {words}{_pace(latest)} ({at} UTC){waiting}"


def _pace(latest: Mapping[str, Any]) -> str:
    if latest["state"] != "running":
        return ""
    rate = "" if latest["rate_per_s"] is None else f", {per_time(latest['rate_per_s'])}"
    eta = "" if latest["eta_s"] is None else f", {duration(latest['eta_s'])} to go"
    workers = f", {counted(latest['workers'], 'worker', 'workers')}" if latest.get("workers") else ""
    return f"{rate}{eta}{workers}"


def counted(number: int, singular: str, plural: str) -> str:
    """Return a number with its noun."""
    return f"{number} {singular if number == 1 else plural}"
