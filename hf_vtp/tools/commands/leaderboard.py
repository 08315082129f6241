"""Every method on every model of a file, at equal FLOPs or equal numbers of tokens, beside the floors.

A result is kept for each model, method and point, and what is there already is not measured again, unless the
method's code, the items or the weights have changed: a run that was stopped goes on where it was. --render
makes the page and the picture of the results. The last line of stdout is what was done, as JSON.
"""

from __future__ import annotations

import argparse

from ..leaderboard import script


def parser() -> argparse.ArgumentParser:
    return script.options(__doc__)


def main(argv: list[str]) -> None:
    script.main(parser().parse_args(argv))
