"""HoloV: patches of the image share the count; as released, and by the paper's formulas on square crops."""

import math

import numpy as np

from .arrays import COUNT, SIDE, cls_attention, cosines, kept, projected, ranked, tower

INPUTS = ("q", "k", "hidden", "w1", "w2")
CASES = [{"num_keep": 16}, {"num_keep": 32}]
PATCHES, SHARE = 16, 0.09
RUNS = [list(range(i, i + COUNT // PATCHES)) for i in range(0, COUNT, COUNT // PATCHES)]
SQUARES = [
    [row * SIDE + column for row in (r, r + 1) for column in (c, c + 1)]
    for r in range(0, SIDE, 2)
    for c in range(0, SIDE, 2)
]


def prepare(x):
    x["q"] /= 8  # attention so flat that no patch is given more places than it has tokens


def quality(states, attention, patch, share):
    """A + share · gamma · V of a patch's tokens; V the variance of cosines, the token's own entry zero."""
    cos = cosines(states[patch])
    np.fill_diagonal(cos, 0.0)
    others = len(patch) - 1
    mean = cos.sum(axis=1, keepdims=True) / others
    variance = ((cos - mean) ** 2).sum(axis=1) / others
    own = attention[patch]
    gamma = np.abs(own).mean() / np.abs(variance).mean()
    return own + share * gamma * variance


def quotas(scores, count):
    """Floors of the shares; what remains goes to the largest, one each."""
    shares = np.array(scores) / sum(scores)
    places = [math.floor(share * count) for share in shares]
    for patch in ranked(shares)[: count - sum(places)]:
        places[patch] += 1
    return places


def released(states, attention, count):
    """Runs in raster order, by the attention alone within a run; a run that keeps all keeps its order."""
    scores = [quality(states, attention, run, SHARE).mean() for run in RUNS]
    order = []
    for run, places in zip(RUNS, quotas(scores, count), strict=True):
        order += run if places >= len(run) else ranked(attention, run)[:places]
    return order


def paper(states, attention, count):
    """Square crops, the best of each by A + gamma V."""
    values = [quality(states, attention, crop, 1.0) for crop in SQUARES]
    keep = []
    for crop, own, places in zip(SQUARES, values, quotas([v.mean() for v in values], count), strict=True):
        keep += [crop[i] for i in ranked(own)[:places]]
    return sorted(keep)


def outputs(x, case):
    attention, joint, count = cls_attention(x), projected(x), case["num_keep"]
    return {
        **kept(released(joint, attention, count)),
        "keep_of_tower_features": sorted(released(tower(x), attention, count)),
        "keep_paper_square_crops": paper(joint, attention, count),
        "keep_paper_square_crops_of_tower_features": paper(tower(x), attention, count),
    }
