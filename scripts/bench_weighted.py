#!/usr/bin/env python
"""What size-weighted attention costs: as a bias on the logits, or as one more channel of queries and keys.

    python scripts/bench_weighted.py --threads 2 --json weighted.json

One attention of CLIP ViT-B/16 and ViT-L/14-336 on random numbers. The last line of stdout is the result as
one JSON object.
"""

import sys

from hf_vtp.tools.commands import run

if __name__ == "__main__":
    sys.exit(run("bench-weighted"))
