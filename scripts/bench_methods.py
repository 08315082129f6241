#!/usr/bin/env python
"""What each method costs by itself: time of scoring + selecting + merging, scratch memory, share of a tower.

    python scripts/bench_methods.py                                   every method, 196 to 16,384 tokens
    python scripts/bench_methods.py --method vtp divprune --num-tokens 576 --batch-size 8 --json out.json

Tokens are random numbers of CLIP ViT-L/14's width: time and memory, nothing about quality. The last line of
stdout is the result as one JSON object.
"""

import sys

from hf_vtp.tools.commands import run

if __name__ == "__main__":
    sys.exit(run("bench-methods"))
