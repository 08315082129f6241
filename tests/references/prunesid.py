"""PruneSID, as loops over one image and NumPy's singular values."""

from math import ceil

import numpy

from .image import mean, ranked

OPTIONS = {"principal_groups": [{"group_size": 2}, {"group_size": 1}, {"importance": "score"}]}


def principal_groups(scores, im, group_size=4, importance="component"):
    count = max(1, min(im.num_keep // group_size, im.n, len(im.states[0])))
    x = 1 / (1 + numpy.exp(-numpy.array(im.states)))
    _, s, v = numpy.linalg.svd((x - x.mean(axis=0)).T, full_matrices=False)  # v: [components, N]
    v = numpy.abs(v[:count]) * (s[:count] ** 2 > 1e-10 * max(s[0] ** 2, 1.0))[:, None]
    v = v.astype(numpy.float32)  # equal tokens have equal entries but for rounding
    group = [int(v[:, i].argmax()) for i in range(im.n)]
    weight = [v[group[i], i] for i in range(im.n)] if importance == "component" else scores
    pairs = [im.cos[i][j] for i in range(im.n) for j in range(i)]
    threshold = im.num_keep / 32 * (mean(pairs) if pairs else 0.0)
    ordered, survivors = [], []
    for g in range(count):
        own = ranked(weight, [i for i in range(im.n) if group[i] == g])
        stay = []
        for i in own:
            if all(im.cos[i][j] <= threshold for j in stay):
                stay.append(i)
        ordered.append(stay + [i for i in own if i not in stay])
        survivors.append(len(stay))
    sizes = [len(own) for own in ordered]
    most = [min(5 * ceil(im.num_keep / 64), n) for n in survivors]
    while sum(most) < im.num_keep:
        most = [min(m + 1, n) for m, n in zip(most, sizes, strict=True)]
    rest, seen, quota = im.num_keep - sum(n > 0 for n in sizes), 0, []
    for g in range(count):
        ends = [(2 * n * rest + sum(survivors)) // (2 * sum(survivors)) for n in (seen, seen + survivors[g])]
        seen += survivors[g]
        quota.append(min((sizes[g] > 0) + ends[1] - ends[0], most[g]))
    for g in ranked(survivors):
        quota[g] += min(most[g] - quota[g], im.num_keep - sum(quota))
    return sorted(i for own, n in zip(ordered, quota, strict=True) for i in own[:n])
