"""Review by a script: approve what is bright enough, reject the rest, and render further outputs in its place.

python examples/review.py FOLDER                    # one that examples/text_to_image.py wrote
"""

import sys
from pathlib import Path

from PIL import ImageStat

import sdbatch

folder = Path(sys.argv[1])
job = {
    "manifest": str(folder / "rows.jsonl"),
    "output": str(folder / "campaign"),
    "models": {"tiny-sd": {"path": "builtin:tiny-sd", "batch_size": 4}},
    "defaults": {"task": "text-to-image", "model": "tiny-sd", "num_inference_steps": 12, "guidance_scale": 4.0},
}
approved, rejected = [], []
for row in sdbatch.metadata(job["output"]).to_pylist():
    brightness = ImageStat.Stat(sdbatch.open_asset(job["output"], row).convert("L")).mean[0]
    (approved if brightness > 140 else rejected).append(f"{row['id']}/{row['n']}")

sdbatch.review(job["output"], approve=approved, by="brightness")
sdbatch.review(job["output"], reject=rejected, note="too dark", by="brightness")
result = sdbatch.run(job, sdbatch.Selection(is_rerolling=True), in_process=True)
print(len(approved), "approved,", len(rejected), "rejected,", result.counts["rows_generated"], "made in their place")
for row in sdbatch.metadata(job["output"]).to_pylist():
    print(row["id"], row["n"], row["verdict"], row["replaces"])
