"""VFlowOpt's scores, cells and what they recycle, as loops over one image."""

from math import ceil, fsum

from .image import by_token, cosines, first_best, mean, mean_vector, ranked
from .mergers import gather

OPTIONS = {
    "calibrated_attention": [{"sensitivity": t} for t in (0.0, 0.9, 1.05)],
    "recycle": [{"sensitivity": 1.0}],
    "recycled_cells": [{"cell": 1}, {"cell": 2}, {"cell": 3}],
}


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
