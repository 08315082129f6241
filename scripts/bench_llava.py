#!/usr/bin/env python
"""What pruning buys on LLaVA: time to the first token and its parts, decoding, memory, and the FLOP bounds.

    python scripts/bench_llava.py --weights random            the 7B geometry, nothing is downloaded
    python scripts/bench_llava.py --weights random --model llava-small --method vtp qk_topk   on a CPU
    python scripts/bench_llava.py --model folder/ --batch-size 1 8 --json out.json --plot out.png

This is scripts/bench_vlm.py with LLaVA-1.5-7B for a default. The last line of stdout is the result as one
JSON object.
"""

import sys

from hf_vtp.tools.commands import run

if __name__ == "__main__":
    sys.exit(run("bench-vlm", "--model", "llava-hf/llava-1.5-7b-hf"))
