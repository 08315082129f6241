#!/usr/bin/env python
"""Find the pruning that makes a model fastest while it stays as close to itself as you say.

    python scripts/tune.py --model openai/clip-vit-base-patch16 --images photos/ --target 0.98 --out half/
    python scripts/tune.py --model llava-hf/llava-1.5-7b-hf --images photos/ --target 0.9 \\
        --question "What is this? Answer in one word." --json tuned.json

The images need no labels. `apply_vtp(model, "half/")` then prunes so. The last line of stdout is the report
as JSON.
"""

import sys

from hf_vtp.tools.commands import run

if __name__ == "__main__":
    sys.exit(run("tune"))
