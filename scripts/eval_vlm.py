#!/usr/bin/env python
"""What pruning costs a vision-language model: answers to questions, of every method beside the floors.

    python scripts/eval_vlm.py --model folder/ --data questions.jsonl --layer default output
    accelerate launch --multi_gpu --num_processes 2 scripts/eval_vlm.py --model folder/ --data q.jsonl

A line of the .jsonl file has image (a file beside it), question, answers and perhaps id; a dataset of
`datasets` has such columns. Every answer goes to --predictions at once, and a run that was killed goes on
from there. The last line of stdout is the result as JSON.
"""

from __future__ import annotations

import logging
import sys

# Transformers imports torchao where it is installed, and that logs what it lacks
for name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(name).setLevel(logging.ERROR)

from hf_vtp.tools.bench import cli  # noqa: E402
from hf_vtp.tools.evaluation import script_vlm  # noqa: E402


def main(argv: list[str]) -> None:
    script_vlm.main(argv, "eval_vlm.py", __doc__)


if __name__ == "__main__":
    sys.exit(cli.run(main))
