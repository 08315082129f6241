#!/usr/bin/env python
"""What pruning costs a classifier or a CLIP: accuracy, agreement, cosine of every method beside the floors.

    python scripts/eval_clip.py --model openai/clip-vit-base-patch16 --data photos/ --layer 1 5
    python scripts/eval_clip.py --model facebook/deit-tiny-patch16-224 --data imagenet/ --flops 0.75 0.6 0.45
    accelerate launch --multi_gpu --num_processes 2 scripts/eval_clip.py --model folder/ --data test.parquet

The data is any dataset of `datasets` with images and class labels or captions, see `hf-vtp eval --help`. The
last line of stdout is the result as JSON.
"""

import sys

from hf_vtp.tools.commands import run

if __name__ == "__main__":
    sys.exit(run("eval-clip"))
