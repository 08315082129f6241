#!/usr/bin/env python
"""What pruning buys on Qwen2.5-VL at several resolutions: inside the tower, and only after it.

    python scripts/bench_qwen2_5_vl.py --weights random       the 7B geometry, nothing is downloaded
    python scripts/bench_qwen2_5_vl.py --weights random --model qwen2_5_vl-small --resolution 256 1024
    python scripts/bench_qwen2_5_vl.py --model folder/ --resolution 4096 16384 --json out.json --plot out.png

`--layer default` prunes inside the tower, `--layer output` after its last block. This is scripts/bench_vlm.py
with the 7B model and both of these for defaults. The last line of stdout is the result as one JSON object.
"""

import sys

from hf_vtp.tools.commands import run

if __name__ == "__main__":
    sys.exit(run("bench-vlm", "--model", "Qwen/Qwen2.5-VL-7B-Instruct", "--layer", "default", "output"))
