#!/usr/bin/env python
"""What pruning buys on LLaVA: time to the first token and its parts, decoding, memory, and the FLOP bounds.

    python scripts/bench_llava.py --weights random            the 7B geometry, nothing is downloaded
    python scripts/bench_llava.py --weights random --model llava-small --method vtp qk_topk   on a CPU
    python scripts/bench_llava.py --model folder/ --batch-size 1 8 --json out.json --plot out.png

The last line of stdout is the result as one JSON object.
"""

from __future__ import annotations

import sys

from hf_vtp.tools.bench import cli, script_vlm

DEFAULT_MODEL = "llava-hf/llava-1.5-7b-hf"


def main(argv: list[str]) -> None:
    options = script_vlm.parser("bench_llava.py", __doc__, DEFAULT_MODEL, [None])
    script_vlm.run("llava", options, argv)


if __name__ == "__main__":
    sys.exit(cli.run(main))
