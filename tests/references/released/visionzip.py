"""VisionZip: dominant tokens by attention of [CLS], and targets of a stride that take up the rest."""

import numpy as np

from .arrays import COUNT, cls_attention, kept, ranked, tower, unit

INPUTS = ("q", "k", "hidden")
CASES = [{"num_keep": 13, "contextual": 2}, {"num_keep": 32, "contextual": 5}]


def outputs(x, case):
    count = case["contextual"]
    by_attention = ranked(cls_attention(x))[: case["num_keep"] - count]
    dominant = sorted(by_attention)
    rest = [i for i in range(COUNT) if i not in dominant]
    targets = rest[:: len(rest) // count][:count]
    keys = unit(x["k"].mean(axis=0)[1:])
    joined = {t: [] for t in targets}
    for i in rest:
        if i not in targets:
            joined[ranked({t: keys[i] @ keys[t] for t in targets}, targets)[0]].append(i)
    h = tower(x)
    values = [h[i] for i in dominant]
    values += [h[t] + np.mean([h[i] for i in own], axis=0) if own else h[t] for t, own in joined.items()]
    order = dominant + targets
    return {**kept(order), "dominant_by_attention": by_attention, "targets": targets, "values": values}
