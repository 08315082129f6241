#!/usr/bin/env python
"""What pruning costs a CLIP: zero-shot accuracy, retrieval and cosine of every method beside the floors.

    python scripts/eval_clip.py --model openai/clip-vit-base-patch16 --data photos/ --layer 1 5
    accelerate launch --multi_gpu --num_processes 2 scripts/eval_clip.py --model folder/ --data test.parquet

The data is any dataset of `datasets` with images and class labels (zero-shot) or captions (retrieval): a
folder, a .parquet or .arrow file, a name on the Hub. The last line of stdout is the result as JSON.
"""

import sys

from hf_vtp.tools.commands import run

if __name__ == "__main__":
    sys.exit(run("eval-clip"))
