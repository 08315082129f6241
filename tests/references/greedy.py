"""Selections that grow a set token after token, and those in rounds."""

from math import fsum, inf

from .image import bounded, cosines, dot, first_best, mean_vector, ranked, softmax, units


def grow(im, gain, first=None):
    """Adds the token with the largest gain(j, chosen) until there are enough."""
    chosen = []
    while len(chosen) < im.num_keep:
        rest = [j for j in range(im.n) if j not in chosen]
        gains = {j: (first(j) if first and not chosen else gain(j, chosen)) for j in rest}
        chosen.append(first_best(gains, rest))
    return sorted(chosen)


def max_min_diversity(scores, im):
    cos = im.projected_cos
    others = range(im.n)
    return grow(
        im,
        lambda j, chosen: min(1 - cos[i][j] for i in chosen),
        lambda j: min((1 - cos[i][j] for i in others if i != j), default=0.0),
    )


def least_similar(scores, im):
    cos = im.projected_cos
    best = max(scores)

    def first(j):
        return -fsum(cos[i][j] for i in range(im.n)) if scores[j] == best else -inf

    return grow(im, lambda j, chosen: -fsum(cos[i][j] for i in chosen), first)


def weights(scores):
    """None below 0; ones where none is above."""
    return [max(0.0, s) for s in scores] if max(scores) > 0 else [1.0] * len(scores)


def covering(rows, weight, im):
    """Adds the column with the largest Σ_r max(0, rows_rj - cover_r) · weight_j until there are enough."""
    chosen, cover = [], [0.0] * len(rows)
    while len(chosen) < im.num_keep:
        rest = [j for j in range(im.n) if j not in chosen]
        gains = {
            j: fsum(row[j] - c for row, c in zip(rows, cover, strict=True) if row[j] > c) * weight[j]
            for j in rest
        }
        chosen.append(first_best(gains, rest))
        cover = [max(c, row[chosen[-1]]) for row, c in zip(rows, cover, strict=True)]
    return sorted(chosen)


def scope(scores, im, alpha=1.0):
    return covering(im.cos, [w**alpha for w in weights(scores)], im)


def max_coverage(scores, im, alpha=0.5, text_temperature=None, image_temperature=0.2):
    v, own, text = units(im.joint), units(im.states), units(im.text)
    text_temperature = text_temperature or (0.02 if im.patches == 1 else 0.01)
    rows = [[x / len(text) for x in softmax([dot(t, j) / text_temperature for j in v])] for t in text]
    rows += [[alpha * x / im.n for x in softmax([dot(i, j) / image_temperature for j in own])] for i in own]
    return covering(rows, [1.0] * im.n, im)


def dpp(scores, im):
    r, every = weights(scores), range(im.n)
    # what is left of L when the chosen are conditioned on (Schur complement); its diagonal holds the gains
    left = [[r[i] * (im.projected_cos[i][j] if i != j else 1.0) * r[j] for j in every] for i in every]
    least = 1e-5 * max(left[i][i] for i in every)
    chosen = []
    while len(chosen) < im.num_keep:
        rest = [j for j in every if j not in chosen]
        s = first_best([left[j][j] if left[j][j] > least else 0.0 for j in every], rest)
        chosen.append(s)
        if left[s][s] > least:
            left = [[left[i][j] - left[i][s] * left[s][j] / left[s][s] for j in every] for i in every]
    return sorted(chosen)


def nms(scores, im, rounds=1):
    cos, chosen = im.cos, []
    for r in range(rounds):
        count = im.num_keep * (r + 1) // rounds - im.num_keep * r // rounds
        if not count:
            continue
        order = ranked(scores)
        redundant = {}
        for i in set(range(im.n)) - set(chosen):
            above = {*order[: order.index(i)], *chosen}
            redundant[i] = max([cos[i][j] for j in above], default=-2.0)
        chosen += sorted(redundant, key=lambda i: (redundant[i], i))[:count]
        scores = [-max([cos[i][j] for j in chosen], default=-2.0) for i in range(im.n)]
    return sorted(chosen)


def spread(scores, im, place=2.0, score=0.4, reach=1.5, rounds=4):
    if im.pooled:
        return nms(scores, im, rounds=rounds)
    frames, rows, columns = im.grid
    size, n = rows * columns, im.n
    spacing = (frames * size / im.num_keep) ** (0.5 if frames == 1 else 1 / 3)
    at = [(p // size, p % size // columns, p % columns) for p in im.place]
    squares = [[2 - 2 * im.cos[i][j] for j in range(n)] for i in range(n)]
    rms = max(sum(map(sum, squares)) / n**2, 1e-5) ** 0.5

    def apart(i, j):
        gap = sum((a - b) ** 2 for a, b in zip(at[i], at[j], strict=True)) ** 0.5 / spacing
        return max(squares[i][j], 1e-5) ** 0.5 / rms + place * min(gap, reach)

    mean = sum(scores) / n
    deviation = (sum((s - mean) ** 2 for s in scores) / n) ** 0.5
    deviation = max(deviation, 1e-3 * sum(map(abs, scores)) / n, 1e-30)
    bonus = [score * (s - mean) / deviation for s in scores]
    chosen = []
    for r in range(rounds):
        count = im.num_keep * (r + 1) // rounds - im.num_keep * r // rounds
        if not count:
            continue
        order = ranked(scores)
        far = {}
        for i in set(range(n)) - set(chosen):
            above = {*order[: order.index(i)], *chosen}
            far[i] = min([apart(i, j) for j in above], default=float("inf")) + bonus[i]
        chosen += sorted(far, key=lambda i: (-far[i], i))[:count]
        scores = [min(apart(i, j) for j in chosen) + bonus[i] for i in range(n)]
    return sorted(chosen)


def bipartite(scores, im):
    cos, joined = im.key_cos, {}
    line = list(range(im.n)) if im.order is None else sorted(range(im.n), key=im.order.__getitem__)
    while len(line) > im.num_keep:
        line = [None] * im.prefix + line  # [CLS] takes a place and merges with none
        even, odd = ([i for i in line[p::2] if i is not None] for p in (0, 1))
        to = {i: max(odd, key=lambda j: cos[i][j]) for i in even}  # noqa: B023  (max returns at once)
        edges = sorted(even, key=lambda i: -cos[i][to[i]])
        count = sum(i is not None for i in line)
        leave = edges[: min(count - im.num_keep, count // 2)]
        joined |= {i: to[i] for i in leave}
        stay = [i for i in (even if im.prefix else edges) if i not in leave]
        line = stay + odd

    def end(i):
        return end(joined[i]) if i in joined else i

    keep = sorted(line)
    return keep, [keep.index(end(i)) for i in range(im.n)], [line.index(i) for i in keep]


def outlier_factors(values, neighbours):
    """The local outlier factor of each number among the others (Breunig et al., SIGMOD 2000)."""
    values, n = sorted(values), len(values)  # of neighbours at one distance the smaller number counts
    k = min(neighbours, n - 1)
    near = [
        sorted((j for j in range(n) if j != i), key=lambda j: abs(values[i] - values[j]))[:k]
        for i in range(n)
    ]
    far = [abs(values[i] - values[near[i][-1]]) for i in range(n)]
    reach = [fsum(max(far[j], abs(values[i] - values[j])) for j in near[i]) / k for i in range(n)]
    density = [1 / (r + 1e-10) for r in reach]
    return [fsum(density[j] for j in near[i]) / k / density[i] for i in range(n)]


def local_outliers(values, neighbours):
    """How many of the numbers have a factor above 1.5."""
    return sum(f > 1.5 for f in outlier_factors(values, neighbours)) if len(values) > 1 else 0


def similarity(im):
    """Likeness to the prompt, not scaled to an image's range."""
    if not im.text:
        return [0.0] * im.n
    like = [row[0] for row in cosines(im.joint, [mean_vector(im.text)])]
    return [c / len(im.text[0]) ** 0.5 if max(like) - min(like) > 1e-6 else 0.0 for c in like]


def recovered(scores, im, neighbours=20, centre_neighbours=10):
    def share(values, near):
        return local_outliers(values, near) / max(1, len(values))

    first = ranked(scores)[: int(im.n * share(scores, neighbours))]
    like = similarity(im)
    lowered = [min(like) if i in first else x for i, x in enumerate(like)]
    rest = [i for i in range(im.n) if i not in first]
    second = ranked(lowered, rest)[: int(len(rest) * share(lowered, neighbours))]
    rest = [i for i in rest if i not in second]
    centres = ranked(scores, rest)[: int(len(rest) * share([scores[i] for i in rest], centre_neighbours))]
    order = first + second + centres
    count = bounded(len(order), im)
    order += ranked(scores, set(range(im.n)) - set(order))
    keep = sorted(order[:count])
    return keep, [keep.index(i) if i in centres and i in keep else -1 for i in range(im.n)]
