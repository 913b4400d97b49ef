"""Image to image: one photo by day, made night at three strengths.

python examples/image_to_image.py [FOLDER]          # from the checkout's root
"""

import json
import sys
from pathlib import Path

import sdbatch

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples/image-to-image")
pictures = "sdbatch/desk/starter_files/images/"
rows = [
    {
        "id": f"night-{strength}",
        "prompt": "a little village with a church tower at night",
        "images": f"{pictures}village.png",
        "strength": strength,  # how much of the source is left behind
        "seed": 7,  # the same noise in each, so that strength alone differs
    }
    for strength in (0.3, 0.6, 0.9)
]
folder.mkdir(parents=True, exist_ok=True)
(folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))

job = {
    "manifest": str(folder / "rows.jsonl"),
    "output": str(folder / "campaign"),
    "models": {"tiny-sd": {"path": "builtin:tiny-sd"}},
    "defaults": {"task": "image-to-image", "model": "tiny-sd", "num_inference_steps": 12, "guidance_scale": 4.0},
    "sources": {"allow": [pictures]},  # no other file is opened
}
print(sdbatch.run(job, in_process=True).counts["rows_ok"], "rows")
