"""What becomes of one image: states [K][M·D], groups [N], sizes [K], and places kept [K] if not `keep`."""

from math import fsum, sqrt

from .greedy import similarity
from .image import cosines, first_best, mean_vector, ranked, salience, softmax


def gather(im, groups, count):
    """The groups' means, and how many tokens each stands for."""
    members = [[i for i in range(im.n) if groups[i] == g] for g in range(count)]
    sizes = [fsum(im.sizes[i] for i in own) for own in members]
    means = [mean_vector([im.content[i] for i in own], [im.sizes[i] for i in own]) for own in members]
    return means, sizes


def joined(keep, cos):
    """Each kept token its own group, each other that of the kept token it resembles most."""
    return [
        keep.index(i) if i in keep else first_best([cos[i][k] for k in keep], range(len(keep)))
        for i in range(len(cos))
    ]


def drop(im, keep):
    return [im.content[i] for i in keep], None, None, None


def absorb(im, keep):
    groups = joined(keep, im.cos)
    means, sizes = gather(im, groups, len(keep))
    return means, groups, sizes, None


def bipartite(im, keep):
    groups = joined(keep, im.key_cos) if im.groups is None else im.groups
    means, sizes = gather(im, groups, len(keep))
    return means, groups, sizes, None


def contextual(im, keep, share=10 / 64):
    gone = [i for i in range(im.n) if i not in keep]
    count = min(max(1, round(share * im.num_keep)), im.num_keep - 1, len(gone))
    targets = [gone[t * (len(gone) // count)] for t in range(count)]
    cos = im.key_cos
    places = sorted([*keep, *targets])
    groups = []
    for i in range(im.n):
        if i in places:
            groups.append(places.index(i))
        elif not targets:
            groups.append(-1)
        else:
            best = first_best([cos[i][t] for t in targets], range(len(targets)))
            groups.append(places.index(targets[best]))
    states, sizes = [], []
    for g, place in enumerate(places):
        others = [i for i in range(im.n) if groups[i] == g and i != place]
        state = im.content[place]
        if others:
            added = mean_vector([im.content[i] for i in others], [im.sizes[i] for i in others])
            state = [a + b for a, b in zip(state, added, strict=True)]
        states.append(state)
        sizes.append(fsum(im.sizes[i] for i in [place, *others]))
    return states, groups, sizes, places


def weighted_sum(im, weights):
    return [
        fsum(w * x for w, x in zip(weights, column, strict=True)) for column in zip(*im.content, strict=True)
    ]


def knn_weighted(im, keep, neighbours=32):
    a, cos = salience(im.next_as_one_head), im.next_as_one_head.key_cos
    return with_rest(im, keep, {i: gathered(im, i, range(im.n), cos[i], neighbours) for i in keep}, a)


def gathered(im, i, among, like, neighbours):
    """A token and its nearest, weighted by attention."""
    a = salience(im.next_as_one_head)
    near = ranked(like, [j for j in among if j != i])[:neighbours]
    added = weighted_sum(im, [a[j] if j in near else 0.0 for j in range(im.n)])
    return [x + y for x, y in zip(im.content[i], added, strict=True)]


def with_rest(im, keep, states, a):
    gone, places = [i for i in range(im.n) if i not in keep], sorted(keep)
    if im.num_keep > 1 and gone:
        extra = ranked(a, gone)[0]
        states[extra] = weighted_sum(im, [a[j] if j in gone else 0.0 for j in range(im.n)])
        places = sorted([*keep, extra])
        groups = [places.index(i if i in keep else extra) for i in range(im.n)]
    else:
        groups = [keep.index(i) if i in keep else -1 for i in range(im.n)]
    return [states[i] for i in places], groups, None, places


def centres(im, keep, neighbours=32, text_weight=50.0):
    """All kept are centres unless the selector says which."""
    a, cos, text = salience(im.next_as_one_head), im.next_as_one_head.key_cos, similarity(im)
    own = [i for i in keep if im.groups is None or im.groups[i] >= 0]
    rest = [i for i in range(im.n) if i not in keep or i in own]
    states = {i: list(im.content[i]) for i in keep}
    for i in own:
        like = [c + text_weight * t for c, t in zip(cos[i], text, strict=True)]
        states[i] = gathered(im, i, rest, like, neighbours)
    return with_rest(im, keep, states, a)


def propagate(im, keep, alpha=0.1, neighbours=8):
    _, rows, columns = im.grid
    cos, edges = im.cos, []
    cells = [(p // columns // rows, p // columns % rows, p % columns) for p in im.place]
    for i in range(im.n):
        near = ranked([c if j != i else -2.0 for j, c in enumerate(cos[i])])[:neighbours]
        apart = [[abs(x - y) for x, y in zip(cells[i], cell, strict=True)] for cell in cells]
        edges.append(
            [
                float(j != i and (j in near or (f == 0 and max(r, c) == 1)))
                for j, (f, r, c) in enumerate(apart)
            ]
        )
    degree = [fsum(own) for own in edges]
    states = []
    for i in keep:
        shares = [
            e / sqrt(degree[i] * degree[j]) if e and j not in keep else 0.0 for j, e in enumerate(edges[i])
        ]
        passed = weighted_sum(im, shares)
        states.append([x + alpha * y for x, y in zip(im.content[i], passed, strict=True)])
    return states, None, None, None


def many_to_many(im, keep, temperature=0.05):
    cos = im.cos
    states = []
    for i in keep:
        weights = [w * s for w, s in zip(softmax([c / temperature for c in cos[i]]), im.sizes, strict=True)]
        states.append(weighted_sum(im, [w / fsum(weights) for w in weights]))
    return states, None, None, None


def lloyd(im, keep, centres, rounds=1):
    patches = im.patches
    for _ in range(rounds):
        d = len(centres[0]) // patches
        means = [mean_vector([c[p * d : (p + 1) * d] for p in range(patches)]) for c in centres]
        cos = cosines(im.states, means)
        groups = [keep.index(i) if i in keep else first_best(cos[i], range(len(keep))) for i in range(im.n)]
        centres, sizes = gather(im, groups, len(keep))
    return centres, groups, sizes, None
