"""What marks cost: XMP, signature and ledger of 1,000 delivered files, processor milliseconds a file.

    python benchmarks/marks.py [--files 1000]

Three deliveries of the same drawn masters take turns: the encoder with XMP, the same signed, and a ledger that grows:
each of twenty more invocations makes one file anew, and its seconds, first and last, stand beside each other.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.masters import noise  # noqa: E402

from sdbatch.deliver import ledger  # noqa: E402
from sdbatch.deliver.stills import small_gray  # noqa: E402
from sdbatch.provenance.definition import definition  # noqa: E402
from sdbatch.provenance.fingerprint import fingerprint  # noqa: E402
from sdbatch.provenance.signing import FileSigner  # noqa: E402
from sdbatch.provenance.signing_keys import checked_key, make_chain  # noqa: E402
from sdbatch.provenance.source_type import GENERATED  # noqa: E402
from sdbatch.provenance.xmp import Properties, packet_of  # noqa: E402
from sdbatch.storage import LocalStore  # noqa: E402

LEDGER_FILES = 1_000


def cpu_s() -> float:
    """Return the processor seconds of this process."""
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=1_000)
    files = parser.parse_args().files
    from PIL import Image

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    image = Image.fromarray(noise(1080, 1350))
    said = Properties(source_type=GENERATED, system="sdxl", system_version="a" * 64, rights="ACME", title="A mug")
    spent: dict[str, float] = dict.fromkeys(("packet", "plain", "marked", "signed", "read_back", "fingerprint"), 0.0)
    chain, private, root = make_chain("ACME")
    signer = FileSigner(checked_key(chain, private, "", None, root))
    bytes_added = 0
    for number in range(files):
        data: dict[str, bytes] = {}
        for arm in ("plain", "marked"):
            began = cpu_s()
            packet = packet_of(said, "jpg") if arm == "marked" else None
            spent["packet"] += cpu_s() - began
            began = cpu_s()
            path = Path(tempfile.gettempdir()) / f"sdbatch-marks-{os.getpid()}.jpg"
            image.save(path, "JPEG", quality=85, **({"xmp": packet.data} if packet else {}))
            spent[arm] += cpu_s() - began
            data[arm] = path.read_bytes()
            path.unlink()
        began = cpu_s()
        shown = fingerprint(small_gray(image))
        spent["fingerprint"] += cpu_s() - began
        claims = definition(
            title=f"{number}.jpg",
            media_type="image/jpeg",
            source_type=GENERATED,
            system="sdxl",
            system_version="a" * 64,
            steps=("resized", "transcoded"),
            fingerprint=shown,
        )
        began = cpu_s()
        signed = signer.sign(data["marked"], "image/jpeg", claims)
        spent["signed"] += cpu_s() - began
        bytes_added = len(signed.data) - len(data["plain"])
    figures: dict[str, Any] = {f"{name}_ms": round(1000 * value / files, 3) for name, value in spent.items() if value}
    figures |= {"files": files, "bytes_added": bytes_added, **_ledger(files)}
    sys.stdout.write(json.dumps(figures) + "\n")


def _ledger(files: int) -> dict[str, Any]:
    """Return the milliseconds of one invocation's ledger: its first, its thousandth, and one that makes many files."""
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(folder)
        took: list[float] = []
        for number in range(LEDGER_FILES):
            rows = _rows(f"{number}", 1)
            began = time.perf_counter()
            ledger.written(store, "deliveries", {"delivery": "d"}, rows, (), f"20260101T{number:06d}Z")
            took.append(1000 * (time.perf_counter() - began))
        rows = _rows("many", files)
        began = time.perf_counter()
        ledger.written(store, "deliveries", {"delivery": "d"}, rows, (), "20260102T000000Z")
        many_ms = 1000 * (time.perf_counter() - began)
    first, last = (sorted(part)[len(part) // 2] for part in (took[:50], took[-50:]))
    return {
        "ledger_ms_of_one_file_first": round(first, 3),
        f"ledger_ms_of_one_file_after_{LEDGER_FILES}": round(last, 3),
        "ledger_ms_a_file_of_many": round(many_ms / files, 4),
    }


def _rows(name: str, count: int) -> dict[str, dict[str, Any]]:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return {
        f"{name}-{n}": {"name": f"{name}-{n}", "status": "ok", "ledger": None, "sha256": digest} for n in range(count)
    }


if __name__ == "__main__":
    main()
