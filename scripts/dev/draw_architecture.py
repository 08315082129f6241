#!/usr/bin/env python
"""Draw docs/architecture.png: the way of pixel_values and of keep_ratio through a pruned model.

    python scripts/dev/draw_architecture.py [docs/architecture.png]

Every box names the file that does the work; the command ends with an error if one of them is not there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.patches import FancyBboxPatch  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
THEIRS, OURS, CONFIG = "#eceff4", "#d8ead2", "#fce5cd"
WIDTH, HEIGHT = 4.3, 1.0

# (x, y, colour, title, what happens, file under hf_vtp/ or "" for Transformers' own code)
BOXES = {
    "call": (0, 8, CONFIG, "apply_vtp(model, keep_ratio=0.5)", "the fields, checked once", "config.py"),
    "look up": (
        0,
        6.6,
        CONFIG,
        "which model is this?",
        "a row of paths, or any placeholder model",
        "families/rows.py",
    ),
    "stages": (0, 5.2, CONFIG, "layers and shares", "keep_ratio 0.5 after layer i", "schedule.py"),
    "count": (
        0,
        3.8,
        CONFIG,
        "num_keep = max(1, round(0.5 · N))",
        "of this image's N tokens",
        "pruning/tokens.py",
    ),
    "pixels": (5.2, 8, THEIRS, "pixel_values → embeddings", "patches and prefix tokens", ""),
    "first": (5.2, 6.6, THEIRS, "layers 0 … i", "queries and keys are recorded", "towers/layer_hooks.py"),
    "stage": (
        5.2,
        5.2,
        OURS,
        "a stage: tokens leave here",
        "score, select, merge: [B, N, D] → [B, K, D]",
        "pruning/stage.py",
    ),
    "rest": (
        5.2,
        3.8,
        THEIRS,
        "layers i+1 … last",
        "see K tokens; masks and rotary positions fit",
        "towers/plain.py",
    ),
    "projector": (
        5.2,
        2.4,
        THEIRS,
        "projector",
        "kept tokens only; dropped rows become NaN",
        "towers/restore.py",
    ),
    "glue": (5.2, 1.0, THEIRS, "get_image_features", "tiles, newlines: Transformers' own, unchanged", ""),
    "read": (
        10.4,
        8,
        OURS,
        "forward or generate begins",
        "features first, then columns that stay",
        "prompts/reader.py",
    ),
    "condense": (
        10.4,
        6.6,
        OURS,
        "the prompt gets shorter",
        "ids, mask, original positions",
        "prompts/condense.py",
    ),
    "feed": (
        10.4,
        5.2,
        OURS,
        "features enter the columns",
        "one road for forward and generate",
        "prompts/forward.py",
    ),
    "language": (10.4, 3.8, THEIRS, "language model", "on the short prompt; its cache is consistent", ""),
    "widen": (
        10.4,
        2.4,
        OURS,
        "back to the caller's columns",
        "logits align with input_ids",
        "prompts/forward.py",
    ),
}
ARROWS = [
    ("call", "look up"),
    ("look up", "stages"),
    ("stages", "count"),
    ("count", "stage"),
    ("pixels", "first"),
    ("first", "stage"),
    ("stage", "rest"),
    ("rest", "projector"),
    ("projector", "glue"),
    ("read", "condense"),
    ("condense", "feed"),
    ("feed", "language"),
    ("language", "widen"),
]
HEADS = ((0, "The way of keep_ratio"), (5.2, "The way of pixel_values"), (10.4, "The way of the prompt"))


def draw(target: Path) -> None:
    figure, axes = plt.subplots(figsize=(14.7, 9.6), dpi=110)
    for x, y, colour, title, what, file in BOXES.values():
        if file and not (ROOT / "hf_vtp" / file).is_file():
            raise SystemExit(f"hf_vtp/{file} is not there; correct BOXES in {Path(__file__).name}")
        box = FancyBboxPatch(
            (x, y), WIDTH, HEIGHT, boxstyle="round,pad=0.06", facecolor=colour, edgecolor="#5b6470"
        )
        axes.add_patch(box)
        axes.text(x + WIDTH / 2, y + 0.78, title, ha="center", va="center", weight="bold", size=10.5)
        axes.text(x + WIDTH / 2, y + 0.46, what, ha="center", va="center", size=9)
        name = f"hf_vtp/{file}" if file else "Transformers"
        axes.text(x + WIDTH / 2, y + 0.14, name, ha="center", va="center", size=9, family="monospace")
    for start, end in ARROWS:
        (x0, y0), (x1, y1) = BOXES[start][:2], BOXES[end][:2]
        if x0 == x1:
            tail, head = (x0 + WIDTH / 2, y0 - 0.07), (x1 + WIDTH / 2, y1 + HEIGHT + 0.07)
        else:
            tail, head = (x0 + WIDTH + 0.07, y0 + 0.6), (x1 - 0.07, y1 + 0.4)
        arrow(axes, tail, head)
    (x0, y0), (x1, y1) = BOXES["glue"][:2], BOXES["read"][:2]
    corner = x0 + WIDTH + (x1 - x0 - WIDTH) / 2
    axes.plot([x0 + WIDTH + 0.07, corner, corner], [y0 + 0.5, y0 + 0.5, y1 + 0.5], color="#5b6470", lw=1.4)
    arrow(axes, (corner, y1 + 0.5), (x1 - 0.07, y1 + 0.5))
    for x, text in HEADS:
        axes.text(x, 9.35, text, size=13, weight="bold", color="#2f3e4e")
    legend = (
        (OURS, "hf_vtp acts"),
        (THEIRS, "Transformers' own code, watched by hooks"),
        (CONFIG, "once, in apply_vtp"),
    )
    for i, (colour, text) in enumerate(legend):
        axes.add_patch(
            FancyBboxPatch(
                (0, 2.0 - 0.5 * i),
                0.3,
                0.22,
                boxstyle="round,pad=0.02",
                facecolor=colour,
                edgecolor="#5b6470",
            )
        )
        axes.text(0.5, 2.11 - 0.5 * i, text, va="center", size=9.5)
    axes.set_xlim(-0.2, 15)
    axes.set_ylim(0.5, 9.9)
    axes.axis("off")
    figure.savefig(target, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def arrow(axes: plt.Axes, tail: tuple, head: tuple) -> None:
    axes.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "color": "#5b6470", "lw": 1.4})


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "architecture.png")
