"""One tick: create tonight's RayJob from the suspended one.

    pattern (RayJob, suspended) --> run_of() --> RayJob of the tick, with the tick's date

The tick's date comes from the Job's name, which Kubernetes makes from the scheduled time: a pod that is tried again
after midnight gives the same run, and a run that is there already is not created twice.
"""  # noqa: INP001 -- a script in a ConfigMap, no package

from __future__ import annotations

import json
import os
import re
import ssl
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

_IDENTITY = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_S = 30.0
# KubeRay refuses longer ones: it appends to the name, and services are named after the result.
_NAME_CHARACTERS_MAX = 47
# A person who starts a tick by hand may well end its name in a date: taken for minutes, 20261121 is in 2008.
_TICK_AGE_MAX = timedelta(days=7)


def tick_time(tick: str) -> datetime | None:
    """Return when a tick was scheduled: its Job's name ends in the minutes since 1970. None where it does not."""
    found = re.search(r"-(\d{8,9})$", tick)
    return datetime.fromtimestamp(int(found[1]) * 60, UTC) if found else None


def run_of(pattern: dict[str, Any], tick: str, tick_uid: str, now: datetime) -> dict[str, Any]:
    """Return the RayJob that a tick stands for.

    Args:
        pattern: The suspended RayJob, as the API server gives it.
        tick: Name of the CronJob's Job, which owns the run.
        tick_uid: Its uid.
        now: The present, with its time zone; its date counts where a person started the tick and named it.
    """
    name, labels = pattern["metadata"]["name"], pattern["metadata"].get("labels", {})
    scheduled = tick_time(tick)
    if scheduled is None or not timedelta(0) <= now - scheduled <= _TICK_AGE_MAX:
        scheduled = None
    date = (scheduled or now).astimezone(UTC).date().isoformat()
    suffix = tick.rsplit("-", 1)[-1] if scheduled else tick
    spec = {key: value for key, value in pattern["spec"].items() if key != "suspend"}
    spec["entrypoint"] = f"{spec['entrypoint']} --date {date}"
    return {
        "apiVersion": pattern["apiVersion"],
        "kind": pattern["kind"],
        "metadata": {
            "name": f"{name}-{suffix}"[:_NAME_CHARACTERS_MAX].rstrip("-"),
            "namespace": pattern["metadata"]["namespace"],
            "labels": labels,
            "annotations": {"sdbatch/date": date},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": tick, "uid": tick_uid}],
        },
        "spec": spec,
    }


def _call(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT_HTTPS", "443")
    host = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(
        f"https://{host}:{port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {(_IDENTITY / 'token').read_text().strip()}",
            "Content-Type": "application/json",
        },
    )
    trust = ssl.create_default_context(cafile=str(_IDENTITY / "ca.crt"))
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=trust) as reply:  # noqa: S310 -- https, see above
        answer: dict[str, Any] = json.load(reply)
    return answer


def main(pattern_name: str) -> None:
    """Create the run of this tick, unless it is there."""
    namespace = (_IDENTITY / "namespace").read_text().strip()
    folder = f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
    pattern = _call(f"{folder}/{pattern_name}")
    run = run_of(pattern, os.environ["TICK_NAME"], os.environ["TICK_UID"], datetime.now(UTC))
    what = f"RayJob {run['metadata']['name']} for {run['metadata']['annotations']['sdbatch/date']}"
    try:
        _call(folder, run)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.CONFLICT:
            raise SystemExit(f"{what}: {error}: {error.read().decode(errors='replace')}") from error
        sys.stdout.write(f"{what}: was there already\n")
    else:
        sys.stdout.write(f"{what}: created\n")


if __name__ == "__main__":
    main(sys.argv[1])
