"""The leaderboard's row of ToMe as its paper has it, run by the reference of the tests.

The library's own `tome` merges at the end of a layer. This row merges between attention and MLP.
"""

import hashlib
import sys
from functools import partial
from pathlib import Path

from hf_vtp.tools.bench.flops import count_flops
from hf_vtp.tools.leaderboard.outside import OUTSIDE, Outside, add_row

TESTS = Path(__file__).resolve().parents[2] / "tests"
NAME = "tome (published)"


def refuses(model) -> str:
    if type(model).__name__ == "ViTForImageClassification":
        return ""
    return "the reference is written for ViTForImageClassification"


def at(model, pixels, share: float):
    """The forward whose share of FLOPs is nearest to the wanted one, that share, and r of the layers.

    Layers merge the same number of tokens, or take turns between two neighbouring numbers.
    """
    from references import tome_published as tome

    layers = model.config.num_hidden_layers
    whole = count_flops(partial(model, pixels))

    def counted(total: int) -> float:
        return count_flops(partial(tome.forward, model, pixels, tome.taking_turns(total, layers))) / whole

    low, high = (
        0,
        layers * pixels[0, 0].numel() // model.config.patch_size**2,
    )  # merges of all layers together
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if counted(middle) > share else (low, middle)
    total = min((low, high), key=lambda total: abs(counted(total) - share))
    schedule = tome.taking_turns(total, layers)

    def forward(pixel_values):
        logits, pooled, _ = tome.forward(model, pixel_values, schedule)
        return pooled, logits

    return forward, counted(total), f"r {total / layers:g} a layer"


def add() -> None:
    """Have the leaderboard show the row, where the tests are there."""
    code = TESTS / "references" / "tome_published.py"
    if NAME not in OUTSIDE and code.is_file():
        sys.path.append(str(TESTS))
        version = hashlib.sha256(code.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:16]
        add_row(Outside(NAME, version, refuses, at))
