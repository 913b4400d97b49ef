"""Inpainting: the sky of a photo painted anew; white in the mask is made anew, black is kept.

python examples/inpaint.py [FOLDER]                 # from the checkout's root
"""

import json
import sys
from pathlib import Path

from PIL import Image

import sdbatch

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples/inpaint")
folder.mkdir(parents=True, exist_ok=True)
source = Image.open("sdbatch/desk/starter_files/images/beach.png").convert("RGB")
source.save(folder / "beach.png")
mask = Image.new("L", source.size, "black")
mask.paste("white", (0, 0, source.width, source.height // 2))
mask.save(folder / "sky.png")

row = {
    "id": "beach-storm",
    "prompt": "a beach in winter under a grey sky",
    "images": str(folder / "beach.png"),
    "mask": str(folder / "sky.png"),
}
(folder / "rows.jsonl").write_text(json.dumps(row))
job = {
    "manifest": str(folder / "rows.jsonl"),
    "output": str(folder / "campaign"),
    "models": {"tiny-sd": {"path": "builtin:tiny-sd"}},
    "defaults": {"task": "inpainting", "model": "tiny-sd", "num_inference_steps": 12, "guidance_scale": 4.0},
    "sources": {"allow": [str(folder)]},
}
print(sdbatch.run(job, in_process=True).counts["rows_ok"], "rows")
