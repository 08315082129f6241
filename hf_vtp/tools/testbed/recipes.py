"""How each model is trained, by kind of machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Steps and batches of one training; a step sees `batch_size` new scenes."""

    steps: int
    batch_size: int
    learning_rate: float  # of AdamW; Muon, which has the layers' matrices, takes `matrix_rate`
    matrix_rate: float | None = 6e-3  # None: AdamW for everything
    warmup: int = 200
    weight_decay: float = 0.05
    decay: float = 0.35  # share of the steps, at the end, over which the rate goes down to nothing
    precision: str = "bfloat16"  # of products, by autocast; "float32": none


RECIPES = {
    # Two CPU cores: these made the weights that are shipped.
    "cpu": {
        "clip": Recipe(steps=800, batch_size=64, learning_rate=2e-3),
        "llava": Recipe(steps=1000, batch_size=32, learning_rate=2e-3, warmup=100),
        "qwen2_5_vl": Recipe(steps=1200, batch_size=32, learning_rate=2e-3),
        # for a core without bfloat16, which Muon needs too
        "captions": Recipe(1200, 32, 2e-3, None, warmup=100, decay=0.6, precision="float32"),
    },
    # One GPU. Not yet run on one.
    "gpu": {
        "clip": Recipe(steps=12000, batch_size=512, learning_rate=2e-3, warmup=500),
        "llava": Recipe(steps=15000, batch_size=256, learning_rate=2e-3, warmup=500),
        "qwen2_5_vl": Recipe(steps=15000, batch_size=256, learning_rate=2e-3, warmup=500),
        "captions": Recipe(1200, 32, 2e-3, None, warmup=100, decay=0.6),
    },
}
