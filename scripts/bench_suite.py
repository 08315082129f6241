#!/usr/bin/env python
"""The CLIP, LLaVA, Qwen2.5-VL and method benchmarks at the published sizes, one piece after the other.

    python scripts/bench_suite.py --out results/                     every piece for this device
    python scripts/bench_suite.py --out results/ --piece NAME ...    some of them
    python scripts/bench_suite.py --list                             what there is, with commands

Each piece writes NAME.json, NAME.md and a picture, and takes under nine minutes. Weights are random.
"""

import sys

from hf_vtp.tools.commands import run

if __name__ == "__main__":
    sys.exit(run("bench-suite"))
