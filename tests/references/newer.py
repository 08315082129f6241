"""Loops of the methods of 2025 and 2026: EVS, VScan, PruneSID, VFlowOpt."""

from math import ceil, erf, fsum, sqrt

import numpy
from safetensors import safe_open

from .image import bounded, by_token, cosines, dot, first_best, mean, mean_vector, ranked, units
from .mergers import gather


def frame_change(im):
    size = im.grid[1] * im.grid[2]
    at, unit = {place: i for i, place in enumerate(im.place)}, units(im.states)
    before = [at.get(place - size) for place in im.place]
    return [255.0 if j is None else 1 - dot(unit[i], unit[j]) for i, j in enumerate(before)]


def first_frame(scores, im):
    first = sum(place < im.grid[1] * im.grid[2] for place in im.place)
    return sorted(ranked(scores)[: bounded(max(first, round(im.share * im.n)), im)])


def global_local(scores, im, global_share=0.5, windows=4, local_depth=None):
    frames, rows, columns = im.grid
    early = im.seen[max(layer for layer in im.seen if layer <= im.layer)]
    chosen = ranked(scores)[: round(global_share * im.num_keep)]
    shown = {}
    for i, p in enumerate(im.place):
        frame, row, column = p // (rows * columns), p // columns % rows, p % columns
        window = frame, row * windows // rows, column * windows // columns
        if i not in chosen:
            shown.setdefault(window, []).append(i)
    queues = [ranked(early, own) for own in shown.values()]
    while len(chosen) < im.num_keep:
        turn = ranked(early, [queue.pop(0) for queue in queues if queue])
        chosen += turn[: im.num_keep - len(chosen)]
    return sorted(chosen)


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


def calibrated_attention(im, sensitivity=7.0):
    heads = im.attention
    every = range(im.prefix, len(heads[0]))
    table = {i: [mean(rows[i][j] for rows in heads) for j in range(len(heads[0]))] for i in every}

    def summed(among):
        return [fsum(table[i][j] for i in among) for j in range(len(heads[0]))]

    received = summed(every)
    bound = sensitivity * mean(received[j] for j in every) * (1 + 1e-5)
    return by_token(im, summed([j for j in every if received[j] > bound] or every))


def recycled_cells(scores, im, cell=8):
    frames, rows, columns = im.grid
    recycled = min(frames * ceil(rows / cell) * ceil(columns / cell), im.num_keep - 1)
    keep, cells = ranked(scores)[: im.num_keep - recycled], {}
    for i in ranked(scores):
        if i not in keep:
            p = im.place[i]
            where = p // (rows * columns), p // columns % rows // cell, p % columns // cell
            cells.setdefault(where, []).append(i)
    best = [own[0] for own in cells.values()]
    others = [i for own in cells.values() for i in own[1:]]
    keep = sorted(keep + (ranked(scores, best) + ranked(scores, others))[:recycled])
    groups = [keep.index(i) if i in keep else -1 for i in range(im.n)]
    for own in cells.values():
        for i in own:
            if i not in keep and own[0] in keep:
                groups[i] = keep.index(own[0])
    return keep, groups


def recycle(im, keep, sensitivity=7.0):
    weight = [max(w, 1e-9) for w in calibrated_attention(im, sensitivity)]
    groups = im.groups
    if groups is None:
        cos = cosines(im.states)
        groups = [
            keep.index(i) if i in keep else first_best([cos[i][k] for k in keep], range(len(keep)))
            for i in range(im.n)
        ]
    states = []
    for g in range(len(keep)):
        own = [i for i in range(im.n) if groups[i] == g]
        states.append(mean_vector([im.content[i] for i in own], [weight[i] for i in own]))
    return states, groups, gather(im, groups, len(keep))[1], None


def linear_probe(im, weights):
    with safe_open(weights, "numpy") as file:
        w = {name: file.get_tensor(name).astype(float).tolist() for name in file.keys()}
    scores = []
    for x in im.states:
        average = mean(x)
        spread = sqrt(mean((v - average) ** 2 for v in x) + 1e-5)
        x = [(v - average) / spread for v in x]
        x = [v * a + b for v, a, b in zip(x, w["norm.weight"], w["norm.bias"], strict=True)]
        if "hidden.weight" in w:
            x = [dot(x, row) + b for row, b in zip(w["hidden.weight"], w["hidden.bias"], strict=True)]
            x = [v * (1 + erf(v / sqrt(2))) / 2 for v in x]
        scores.append(dot(x, w["linear.weight"][0]) + w["linear.bias"][0])
    return scores
