#!/usr/bin/env python
"""Check on a model and pictures of yours that pruning gives what it promises.

    python scripts/verify.py --model openai/clip-vit-large-patch14 --image photo.jpg
    python scripts/verify.py --model Qwen/Qwen2.5-VL-7B-Instruct --image *.jpg --prompt "What is this?" \
        --keep-ratio 0.5 --dtype bfloat16 --device cuda
    python scripts/verify.py --model llava-small --weights random

Prints a table and one JSON line. The exit code is 0 if all checks that apply hold, 1 if one does not, 2 for
input that cannot be used.
"""

import sys

from hf_vtp.tools.commands import run

if __name__ == "__main__":
    sys.exit(run("verify"))
