#!/usr/bin/env python
"""Prune a model, measure it, write its card, and push config and card to the Hub in one commit.

    python scripts/push_to_hub.py --model openai/clip-vit-base-patch16 --keep-ratio 0.5 --repo me/clip-half
    python scripts/push_to_hub.py --model … --keep-ratio 0.5 --repo … --results results.json --dry-run

The folder that is pushed stays, so that a push that failed can be repeated with --results.
"""

import sys

from hf_vtp.tools.commands import run

if __name__ == "__main__":
    sys.exit(run("push-to-hub"))
