"""Text to image: three prompts, two pictures of each.

python examples/text_to_image.py [FOLDER]
"""

import json
import sys
from pathlib import Path

import sdbatch

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples/text-to-image")
rows = [
    {"id": "beach", "prompt": "a wide beach with palm trees at sunset, photo", "num_outputs": 2},
    {"id": "peaks", "prompt": "snowy mountains on a clear day, pencil sketch", "num_outputs": 2},
    {
        "id": "village",
        "prompt": "a village with a church tower, abstract poster",
        "num_outputs": 2,
        "x_look": "abstract",
    },
]
folder.mkdir(parents=True, exist_ok=True)
(folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))

campaign = str(folder / "campaign")
job = {
    "manifest": str(folder / "rows.jsonl"),
    "output": campaign,
    "models": {"tiny-sd": {"path": "builtin:tiny-sd", "batch_size": 4}},
    "defaults": {"task": "text-to-image", "model": "tiny-sd", "num_inference_steps": 12, "guidance_scale": 4.0},
}
sdbatch.check(job)  # raises ManifestError with every problem
result = sdbatch.run(job, in_process=True)  # without in_process: on the Ray cluster of RAY_ADDRESS, or one of its own
print(result.state, result.counts["rows_ok"], "rows")
for row in sdbatch.metadata(campaign).to_pylist():
    print(row["id"], row["n"], row["seed"], row["asset"])
