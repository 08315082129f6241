#!/usr/bin/env python
"""What pruning costs a CLIP: zero-shot accuracy, retrieval and cosine of every method beside the floors.

    python scripts/eval_clip.py --model openai/clip-vit-base-patch16 --data photos/ --layer 1 5
    accelerate launch --multi_gpu --num_processes 2 scripts/eval_clip.py --model folder/ --data test.parquet

The data is any dataset of `datasets` with images and class labels (zero-shot) or captions (retrieval): a
folder, a .parquet or .arrow file, a name on the Hub. The last line of stdout is the result as JSON.
"""

from __future__ import annotations

import logging
import sys

# Transformers imports torchao where it is installed, and that logs what it lacks
for name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(name).setLevel(logging.ERROR)

from hf_vtp.tools.bench import cli  # noqa: E402
from hf_vtp.tools.evaluation import script_clip  # noqa: E402


def main(argv: list[str]) -> None:
    script_clip.main(argv, "eval_clip.py", __doc__)


if __name__ == "__main__":
    sys.exit(cli.run(main))
