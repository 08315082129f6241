"""SCOPE: greedy coverage of the tower's features, weighted by attention of [CLS]."""

import numpy as np

from .arrays import cls_attention, cosines, greedy, kept, tower

INPUTS = ("q", "k", "hidden")
CASES = [{"num_keep": 13}, {"num_keep": 32}]


def outputs(x, case):
    cos, weight = cosines(tower(x)), cls_attention(x)

    def gain(j, chosen):
        cover = cos[:, chosen].max(axis=1, initial=0.0)  # of every token by those chosen
        return np.maximum(0.0, cos[:, j] - cover).sum() * weight[j]

    return kept(greedy(case["num_keep"], gain))
