"""HiPrune: anchors of a middle layer, what touches them, and a deep layer's choice."""

import numpy as np

from .arrays import COUNT, SIDE, attention, ranked

INPUTS = ("q", "k", "q_other", "k_other", "hidden")
CASES = [{"num_keep": 32, "alpha": 0.1, "anchors": 1}, {"num_keep": 32, "alpha": 0.5, "anchors": 3}]
# the stage's layer, layers, prefix tokens, layer of the anchors from 0: CLIP-L, Qwen2.5-VL
ANCHOR_LAYER = [[22, 24, 1, 8], [31, 32, 0, 15]]


def inner():
    """True for the 36 cells that do not touch the border, [64]."""
    cells = [(i // SIDE, i % SIDE) for i in range(COUNT)]
    return np.array([0 < r < SIDE - 1 and 0 < c < SIDE - 1 for r, c in cells])


def prepare(x):
    x["q_other"][..., 0] = np.abs(x["q_other"][..., 0]) + 1
    x["k_other"][:, :, 1:, 0] += np.where(inner(), 3.0, -3.0)


def received(q, k):
    """Attention a token receives from all, mean over the heads, [64]."""
    return attention(q, k).mean(axis=0).sum(axis=0)[1:]


def wrapped(i):
    """Four neighbours by raster index: the ends of a row run on, and the first and last are clamped."""
    return [min(max(i + step, 0), COUNT - 1) for step in (-1, 1, -SIDE, SIDE)]


def true_neighbours(i):
    """Those that share an edge."""
    row, column = i // SIDE, i % SIDE
    around = [(row, column - 1), (row, column + 1), (row - 1, column), (row + 1, column)]
    return [r * SIDE + c for r, c in around if 0 <= r < SIDE and 0 <= c < SIDE]


def chosen(shallow, deep, case, neighbours):
    anchors = ranked(shallow)[: max(1, round(case["num_keep"] * case["alpha"] / 5))]
    marked = set(anchors).union(*(neighbours(i) for i in anchors))
    rest = ranked(deep, [i for i in range(COUNT) if i not in marked])
    return anchors, sorted([*marked, *rest[: case["num_keep"] - len(marked)]])


def outputs(x, case):
    deep = received(x["q"], x["k"])
    anchors, keep = chosen(received(x["q_other"], x["k_other"]), deep, case, wrapped)
    turned = x["k_other"].copy()
    turned[..., 0] *= -1
    at_border = received(x["q_other"], turned)
    border_anchors, border = chosen(at_border, deep, case, wrapped)
    return {
        "keep_order": keep,
        "keep": keep,
        "anchors": anchors,
        "keep_border": border,
        "anchors_border": border_anchors,
        "keep_border_true_neighbours": chosen(at_border, deep, case, true_neighbours)[1],
    }


def whole(case):
    """What belongs to no image."""
    return {"anchor_layer": ANCHOR_LAYER}
