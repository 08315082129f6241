"""What pruning costs a classifier or a CLIP: accuracy, agreement, cosine of every method beside the floors.

    hf-vtp eval --model facebook/deit-tiny-patch16-224 --data ILSVRC/imagenet-1k --split validation \\
        --method vtp tome divprune+absorb --layer default 2,4,6,8 --flops 0.75 0.6 0.45 --against tome

The data is any dataset of `datasets` with images and class labels or captions: a folder, a .parquet or .arrow
file, a name on the Hub, or a folder of .zip archives with a labels.json, a list of objects as in
{"file": "a.jpg", "label": 0, "class": "tench"}. A classifier's labels are found by the names in its config,
else by number. With --flops every method gets the keep_ratio that costs that share of the tower's FLOPs. The
last line of stdout is the result as JSON.
"""

from __future__ import annotations

import argparse

from ..evaluation import script, script_clip


def parser() -> argparse.ArgumentParser:
    return script_clip.options(__doc__)


def main(argv: list[str]) -> None:
    script.main(parser(), script_clip.evaluate, argv)
