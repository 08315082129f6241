"""What pruning costs a CLIP: zero-shot accuracy, retrieval and cosine of every method beside the floors.

The data is any dataset of `datasets` with images and class labels (zero-shot) or captions (retrieval): a
folder, a .parquet or .arrow file, a name on the Hub. The last line of stdout is the result as JSON.
"""

from __future__ import annotations

import argparse

from ..evaluation import script, script_clip


def parser() -> argparse.ArgumentParser:
    return script_clip.options(__doc__)


def main(argv: list[str]) -> None:
    script.main(parser(), script_clip.evaluate, argv)
