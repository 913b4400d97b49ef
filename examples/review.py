"""Review by a script: approve what is bright enough, reject the rest, and render further outputs in its place.

python examples/review.py FOLDER                    # one that examples/text_to_image.py wrote
"""

import sys
from pathlib import Path

from PIL import ImageStat

import sdbatch

if len(sys.argv) != 2:
    sys.exit(__doc__)
folder = Path(sys.argv[1])
campaign = str(folder / "campaign")
job = {
    "manifest": str(folder / "rows.jsonl"),
    "output": campaign,
    "models": {"tiny-sd": {"path": "builtin:tiny-sd", "batch_size": 4}},
    "defaults": {"task": "text-to-image", "model": "tiny-sd", "num_inference_steps": 12, "guidance_scale": 4.0},
}
approved: list[str] = []
rejected: list[str] = []
for row in sdbatch.metadata(campaign).to_pylist():
    brightness = ImageStat.Stat(sdbatch.open_asset(campaign, row).convert("L")).mean[0]
    (approved if brightness > 140 else rejected).append(f"{row['id']}/{row['n']}")

sdbatch.review(campaign, approve=approved, by="brightness")
if rejected:
    sdbatch.review(campaign, reject=rejected, note="too dark", by="brightness")
result = sdbatch.run(job, sdbatch.Selection(is_rerolling=True), in_process=True)
print(len(approved), "approved,", len(rejected), "rejected,", result.counts["rows_generated"], "made in their place")
for row in sdbatch.metadata(campaign).to_pylist():
    print(row["id"], row["n"], row["verdict"], row["replaces"])
