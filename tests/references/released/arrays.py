"""Parts that several references share: one image each, [CLS] at place 0, float64."""

import math

import numpy as np

SIDE, COUNT = 8, 64  # of the grid; tokens


def softmax(logits):
    """Of the last axis."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention(q, k):
    """softmax(q k^T / sqrt(d)) of every head, [H, 65, 65]."""
    return softmax(q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1]))


def cls_attention(x, q="q", k="k"):
    """Attention of [CLS] to every token, mean over the heads, [64]."""
    return attention(x[q], x[k])[:, 0, 1:].mean(axis=0)


def one_head(x):
    """All heads side by side, [65, H·d]."""
    return x.swapaxes(0, 1).reshape(x.shape[1], -1)


def unit(x):
    """Rows of length one."""
    return x / np.sqrt((x * x).sum(axis=-1, keepdims=True))


def cosines(x):
    """Of all rows with all, [n, n]."""
    return unit(x) @ unit(x).T


def tower(x):
    """The features without [CLS], [64, 32]."""
    return x["hidden"][1:]


def projected(x):
    """gelu(h @ w1) @ w2 of the tokens without [CLS], [64, 40]; the exact gelu."""
    h = tower(x) @ x["w1"]
    cdf = np.array([[0.5 * (1 + math.erf(v / math.sqrt(2))) for v in row] for row in h])
    return (h * cdf) @ x["w2"]


def ranked(values, among=None):
    """Indices by falling value, ties to the lower index."""
    among = range(len(values)) if among is None else among
    return sorted(among, key=lambda i: (-values[i], i))


def greedy(count, gain, first=None):
    """Places chosen one after another, each with the largest gain(j, chosen)."""
    chosen = [] if first is None else [first]
    while len(chosen) < count:
        rest = [j for j in range(COUNT) if j not in chosen]
        gains = {j: gain(j, chosen) for j in rest}
        chosen.append(ranked(gains, rest)[0])
    return chosen


def kept(order, suffix=""):
    """The arrays `keep_order` and `keep` of a choice."""
    return {f"keep{suffix}_order": order, f"keep{suffix}": sorted(order)}
