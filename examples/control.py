"""ControlNet: the edges of a picture give the shapes, the prompt gives the look.

python examples/control.py MODEL CONTROLNET FOLDER  # folders in diffusers' layout, of one family
"""

import json
import sys
from pathlib import Path

from PIL import Image, ImageFilter

import sdbatch

if len(sys.argv) != 4:
    sys.exit(__doc__)
model, controlnet, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
folder.mkdir(parents=True, exist_ok=True)
photo = Image.open("sdbatch/desk/starter_files/images/village.png").convert("L")
photo.filter(ImageFilter.FIND_EDGES).convert("RGB").save(folder / "edges.png")

looks = ("photo", "pencil sketch", "abstract poster")
rows = [
    {"id": look.replace(" ", "-"), "prompt": f"a village, {look}", "control_image": str(folder / "edges.png")}
    for look in looks
]
(folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
job = {
    "manifest": str(folder / "rows.jsonl"),
    "output": str(folder / "campaign"),
    "models": {"controlled": {"path": model, "controlnet": controlnet}},
    "defaults": {"task": "text-to-image", "model": "controlled", "num_inference_steps": 4},
    "sources": {"allow": [str(folder)]},
}
print(sdbatch.run(job, in_process=True).counts["rows_ok"], "rows")
