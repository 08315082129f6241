"""ToMe: two rounds of bipartite soft matching, without and with [CLS] in the sequence."""

import numpy as np

from .arrays import unit

INPUTS = ("k", "hidden")
CASES = [{"r": 8}, {"r": 20}]


def merged(groups, metric, r, has_cls):
    """Groups (lists of places) after r merges: unmerged, then destinations, as the next round sees them."""
    metric = unit(metric)
    even, odd = list(range(0, len(groups), 2)), list(range(1, len(groups), 2))
    best = {}
    for i in even:
        like = [metric[i] @ metric[j] for j in odd]
        j = int(np.argmax(like))
        best[i] = (like[j], odd[j])
    free = [i for i in even if not (has_cls and i == 0)]  # [CLS] comes first and never merges
    by_edge = sorted(free, key=lambda i: (-best[i][0], i))
    r = min(r, (len(groups) - has_cls) // 2)
    source, unmerged = by_edge[:r], by_edge[r:]
    if has_cls:
        unmerged = [0, *sorted(unmerged)]
    joined = {j: list(groups[j]) for j in odd}
    for i in source:
        joined[best[i][1]] += groups[i]
    return [groups[i] for i in unmerged] + list(joined.values())


def outputs(x, case):
    out = {}
    for tag, has_cls in (("nocls", False), ("cls", True)):
        h = x["hidden"] if has_cls else x["hidden"][1:]
        metric = x["k"].mean(axis=0) if has_cls else x["k"].mean(axis=0)[1:]
        groups = [[i] for i in range(len(h))]
        for turn in (1, 2):
            groups = merged(groups, metric, case["r"], has_cls)
            values = np.array([h[group].mean(axis=0) for group in groups])
            metric = values
            tokens = [i for i, group in enumerate(groups) if not (has_cls and 0 in group)]
            least = [min(groups[i]) - has_cls for i in tokens]
            of = {place - has_cls: min(group) - has_cls for group in groups for place in group}
            out[f"groups_{tag}_{turn}"] = [of[i] for i in range(64)]
            out[f"order_{tag}_{turn}"] = least
            out[f"values_{tag}_{turn}"] = values[tokens]
            out[f"sizes_{tag}_{turn}"] = np.array([float(len(groups[i])) for i in tokens])
    return out
