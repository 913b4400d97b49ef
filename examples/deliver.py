"""Deliver: files of exact sizes and under a byte cap, made from a campaign's masters on CPUs.

python examples/deliver.py CAMPAIGN TARGET          # such as out/examples/text-to-image/campaign out/shop
"""

import sys
from pathlib import Path

import yaml

import sdbatch

if len(sys.argv) != 3:
    sys.exit(__doc__)
campaign, target = sys.argv[1], Path(sys.argv[2])
delivery = {
    "campaign": campaign,
    "formats": [
        "display-300x250",  # a shipped format: JPEG under 150 KB
        {"name": "tile", "width": 200, "height": 200, "type": "webp", "bytes_max": 15_000},
    ],
    "name": "{format}/{id}-{n}.{ext}",
    "metadata": {"creator": "ACME", "title": "{id}"},  # every file says in itself that it was generated
    "to": str(target),
}
target.mkdir(parents=True, exist_ok=True)
file = target.with_suffix(".yaml")
file.write_text(yaml.safe_dump(delivery))

report = sdbatch.deliver(str(file))
print(report.exit_code, sorted(str(path.relative_to(target)) for path in target.rglob("*.*") if path.is_file()))
print(sdbatch.verify_delivery(str(target)).is_good)
