"""Recoverable Compression: outliers of attention, what the text asks for, and centres that gather the rest.

Two slips of the released code are kept in `values` and mended in `values_mended`: the number of centres is a
share of the channels, not of the tokens that remain; and the keys of what remains are the first of all keys.
"""

import numpy as np

from references.greedy import outlier_factors

from .arrays import COUNT, one_head, projected, ranked, tower, unit
from .prumerge import attention_as_one_head

INPUTS = ("q_other", "k_other", "hidden", "text", "w1", "w2")
CASES = [{"scale_q": 0.5}, {"scale_q": 0.25}]
TEXT_WEIGHT, GATHERED = 50.0, 32


def outlier_share(values, neighbours):
    """Share of the numbers whose local outlier factor exceeds 1.5."""
    values = [float(v) for v in values]
    return sum(f > 1.5 for f in outlier_factors(values, neighbours)) / len(values)


def outputs(x, case):
    attention, h = attention_as_one_head(x, case), tower(x)
    vision = ranked(attention)[: int(COUNT * outlier_share(attention, 20))]
    similarity = unit(projected(x)) @ unit(x["text"][0]) / len(x["text"][0]) ** 0.5
    lowered = similarity.copy()
    lowered[vision] = similarity.min()
    recovered = ranked(lowered)[: int((COUNT - len(vision)) * outlier_share(lowered, 20))]
    first = sorted([*vision, *recovered])
    rest = [i for i in range(COUNT) if i not in first]
    out = {"vision": vision, "recovered": recovered, "similarity": similarity}
    for suffix, mended in (("", False), ("_mended", True)):
        share = outlier_share(attention[rest], 10)
        centres = ranked(attention, rest)[: int((len(rest) if mended else h.shape[1]) * share)]
        keys = unit(one_head(x["k_other"])[1:][rest if mended else range(len(rest))])
        values = list(h[first])
        for c in centres:
            like = keys @ keys[rest.index(c)] + TEXT_WEIGHT * lowered[rest]
            near = ranked(like, [i for i in range(len(rest)) if rest[i] != c])[:GATHERED]
            values.append(h[c] + sum(attention[rest[i]] * h[rest[i]] for i in near))
        if centres:
            values.append(sum(attention[i] * h[i] for i in rest if i not in centres))
        out[f"centres{suffix}"], out[f"values{suffix}"] = centres, np.array(values)
        out[f"keep{suffix}"] = sorted([*first, *centres])
    return out
