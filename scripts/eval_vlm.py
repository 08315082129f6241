#!/usr/bin/env python
"""What pruning costs a vision-language model: answers to questions, of every method beside the floors.

    python scripts/eval_vlm.py --model folder/ --data questions.jsonl --layer default output
    accelerate launch --multi_gpu --num_processes 2 scripts/eval_vlm.py --model folder/ --data q.jsonl

A line of the .jsonl file has image (a file beside it), question, answers and perhaps id; a dataset of
`datasets` has such columns. Every answer goes to --predictions at once, and a run that was killed goes on
from there. The last line of stdout is the result as JSON.
"""

import sys

from hf_vtp.tools.commands import run

if __name__ == "__main__":
    sys.exit(run("eval-vlm"))
