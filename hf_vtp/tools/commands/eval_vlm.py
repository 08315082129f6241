"""What pruning costs a vision-language model: answers to questions, of every method beside the floors.

A line of the .jsonl file has image (a file beside it), question, answers and perhaps id; a dataset of
`datasets` has such columns. Every answer goes to --predictions at once, and a run that was killed goes on
from there. The last line of stdout is the result as JSON.
"""

from __future__ import annotations

import argparse

from ..evaluation import script, script_vlm


def parser() -> argparse.ArgumentParser:
    return script_vlm.options(__doc__)


def main(argv: list[str]) -> None:
    script.main(parser(), script_vlm.evaluate, argv)
