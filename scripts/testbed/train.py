#!/usr/bin/env python
"""Train one of the testbed's models from a seed, on scenes drawn while it learns or on captioned pictures.

    python scripts/testbed/train.py clip --out runs/clip
    python scripts/testbed/train.py llava --out runs/llava --clip runs/clip
    python scripts/testbed/train.py qwen2_5_vl --out runs/qwen2_5_vl
    python scripts/testbed/train.py captions --out runs/captioner --tower VIT --captions runs/captions

The same command goes on where a run was stopped. The last line of stdout is the result as one JSON object.
"""

import sys
from pathlib import Path

from hf_vtp.tools.commands import run

CLIP = Path(__file__).resolve().parents[2] / "tests" / "testbed" / "clip"

if __name__ == "__main__":
    sys.exit(run("train-testbed", "--clip", str(CLIP)))
