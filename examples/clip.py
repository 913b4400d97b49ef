"""Clips: one from words, one that begins with a picture, one that passes through two.

python examples/clip.py [FOLDER]                    # from the checkout's root
"""

import json
import sys
from pathlib import Path

import sdbatch

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples/clip")
pictures = "sdbatch/desk/starter_files/images/"
beach, village = f"{pictures}beach.png", f"{pictures}village.png"
rows = [
    {"id": "pan", "task": "text-to-video", "prompt": "a beach, the camera pans left"},
    {"id": "begins", "task": "image-to-video", "prompt": "the sun sets over a beach", "images": [beach]},
    {
        "id": "passes",
        "task": "image-to-video",
        "prompt": "from a beach to a village",
        "images": [beach, village],
        "keyframes": [0, 16],  # frame numbers: the first and the last of 17
    },
]
folder.mkdir(parents=True, exist_ok=True)
(folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))

job = {
    "manifest": str(folder / "rows.jsonl"),
    "output": str(folder / "campaign"),
    "models": {"tiny-video": {"path": "builtin:tiny-video"}},
    "defaults": {"model": "tiny-video", "num_inference_steps": 8, "guidance_scale": 2.0, "num_frames": 17},
    "sources": {"allow": [pictures]},
}
print(sdbatch.run(job, in_process=True).counts["rows_ok"], "rows")
