#!/usr/bin/env python
"""Draw which patches of your pictures stay.

    python scripts/visualize.py photo.jpg --out kept.png
    python scripts/visualize.py photo.jpg --model llava --method qk_topk --heat-map --out heat.png
    python scripts/visualize.py *.jpg --method vtp random --keep-ratio 0.7 0.3 --out sheet.png

One picture, method and ratio come at the picture's own size, one panel a stage; more of any become a sheet.
The models `clip`, `llava` and `qwen2_5_vl` are the testbed's; any other is a folder or a name on the Hub.
"""

import sys
from pathlib import Path

from hf_vtp.tools.commands import run

TESTBED = Path(__file__).resolve().parent.parent / "tests" / "testbed"

if __name__ == "__main__":
    sys.exit(run("visualize", "--testbed", str(TESTBED)))
