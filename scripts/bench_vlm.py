#!/usr/bin/env python
"""What pruning buys on a vision-language model: time to the first token, by parts, decoding, memory, FLOPs.

    python scripts/bench_vlm.py --model llava-small --weights random --method vtp qk_topk      on a CPU
    python scripts/bench_vlm.py --model qwen2_5_vl-small --weights random --resolution 256 1024
    python scripts/bench_vlm.py --model folder/ --layer default output --json out.json --plot out.png

The last line of stdout is the result as one JSON object.
"""

import sys

from hf_vtp.tools.commands import run

if __name__ == "__main__":
    sys.exit(run("bench-vlm"))
