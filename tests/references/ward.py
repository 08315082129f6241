"""Ward's clustering as a loop over one image, always the cheapest merge next."""

from math import fsum

from .image import mean

OPTIONS = {"ward": [{"power": 0.0}, {"power": 0.25}]}
TIE = 1e-6  # weights that differ by less, as a share, are equal but for rounding


def ward(scores, im, power=0.5):
    weights = weights_of(scores, im.sizes, power)
    leader = clusters(im.states, weights, im.num_keep)
    keep = sorted(set(leader))
    return keep, [keep.index(i) for i in leader], weights


def weights_of(scores, sizes, power):
    """Size times a power of the score, their mean 1."""
    scores = [max(s, 0.0) for s in scores]
    if not any(scores):
        scores = [1.0] * len(scores)
    least = mean(scores) / 1000
    weights = [size * max(s, least) ** power for size, s in zip(sizes, scores, strict=True)]
    return [w / mean(weights) for w in weights]


def clusters(points, weights, count):
    """The point that the group of each goes by, [N], when `count` groups are there."""
    groups = {i: (w, point, [i]) for i, (w, point) in enumerate(zip(weights, points, strict=True))}
    costs = {(i, j): cost(groups[i], groups[j]) for j in groups for i in range(j)}
    while len(groups) > count:
        i, j = min(costs, key=lambda pair: (costs[pair], pair))
        first, second = groups.pop(i), groups.pop(j)
        costs = {pair: c for pair, c in costs.items() if not {i, j} & set(pair)}
        stays = j if second[0] > first[0] * (1 + TIE) else i
        union = merged(first, second)
        costs |= {tuple(sorted((k, stays))): cost(group, union) for k, group in groups.items()}
        groups[stays] = union
    leader = {i: token for token, (_, _, members) in groups.items() for i in members}
    return [leader[i] for i in range(len(points))]


def cost(one, other):
    """What the union of two groups adds to the weighted squared error."""
    (a, x, _), (b, y, _) = one, other
    return a * b / (a + b) * fsum((p - q) ** 2 for p, q in zip(x, y, strict=True))


def merged(one, other):
    (a, x, members), (b, y, others) = one, other
    centre = [(a * p + b * q) / (a + b) for p, q in zip(x, y, strict=True)]
    return a + b, centre, members + others


def partition(groups):
    """The members of each group, whatever the groups are called."""
    return sorted(sorted(i for i, own in enumerate(groups) if own == g) for g in set(groups))
