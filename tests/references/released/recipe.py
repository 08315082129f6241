"""Inputs drawn from a seed: one or two images of 8x8 tokens and a [CLS], 32 channels, 4 heads of 8."""

import numpy as np

SHARED = ("w1", "w2")  # of all images
STEP = 64  # inputs are multiples of 1 / STEP, so that a file of them packs well


def recipe(seed):
    """Arrays by name, of one image for every third seed, else of two; float64 that float32 holds exactly."""
    rs, b = np.random.RandomState(seed), 1 if seed % 3 == 0 else 2
    x = {name: rs.randn(b, 4, 65, 8) for name in ("q", "k", "v", "q_other", "k_other", "v_other")}
    x["q"], x["q_other"] = 2 * x["q"], 2 * x["q_other"]
    centres, which = rs.randn(b, 12, 32), rs.randint(0, 12, (b, 65))
    x["hidden"] = centres[np.arange(b)[:, None], which] + 0.7 * rs.randn(b, 65, 32)
    x["text"] = rs.randn(b, 5, 40)
    x["w1"], x["w2"] = rs.randn(32, 48) / 32**0.5, rs.randn(48, 40) / 48**0.5
    x["text_hidden"], x["text_key"] = rs.randn(b, 12, 32), rs.randn(b, 4, 12, 8)
    return {name: np.round(a * STEP) / STEP for name, a in x.items()}


def inputs(module, seed):
    """What a reference reads, prepared its way."""
    x = recipe(seed)
    if hasattr(module, "prepare"):
        module.prepare(x)
    return {name: x[name] for name in module.INPUTS}


def images(x):
    """Each image of the inputs alone, arrays without the first dimension."""
    count = len(x["hidden"])
    return [{name: a if name in SHARED else a[b] for name, a in x.items()} for b in range(count)]
