"""Scores, [N]: one number per token of one image, higher = kept."""

from fractions import Fraction
from math import ceil, floor, fsum, sqrt

from .image import (
    by_token,
    cosines,
    dot,
    mean,
    mean_vector,
    norm,
    received,
    salience,
    softmax,
)


def cls_attention(im):
    return salience(im)


def one_head_attention(im):
    return salience(im.next_as_one_head)


def equal(im):
    return [0.0] * im.n


def scaled(values):
    total = fsum(values)
    return [v / total if total else 0.0 for v in values]


def of_layer(im, momentum=0.5):
    means = [mean_vector([head[i] for head in im.value]) for i in range(len(im.value[0]))]
    size = by_token(im, [fsum(abs(x) for x in v) for v in means])
    share = salience(im)
    if im.prefix:
        heads = [softmax([dot(head[0], v) for v in head]) for head in im.value]
        like = by_token(im, [mean(column) for column in zip(*heads, strict=True)])
        share = [a + c for a, c in zip(scaled(share), scaled(like), strict=True)]
    return [a * v for a, v in zip(share, size, strict=True)]


def flow(im, momentum=0.5):
    layers = sorted(layer for layer in im.seen if layer <= im.layer)
    c = im.seen[layers[0]]
    for layer in layers[1:]:
        c = [momentum * old + (1 - momentum) * new for old, new in zip(c, im.seen[layer], strict=True)]
    return c


def own_and_received(im, over="max"):
    of_heads, table = {"max": max, "mean": mean}[over], im.attention
    every = range(len(table[0]))
    own = by_token(im, [of_heads([rows[i][i] for rows in table]) for i in every])
    column = by_token(im, [of_heads([fsum(rows[i][j] for i in every) for rows in table]) for j in every])
    return [a * r for a, r in zip(own, column, strict=True)]


def pagerank(im, iterations=5, least_variance=0.01, most_variance=0.7):
    heads = []
    for rows in im.attention:
        s = [1.0] * len(rows)
        for _ in range(iterations):
            s = [fsum(rows[i][j] * s[i] for i in range(len(rows))) for j in range(len(rows))]
        heads.append(by_token(im, s))
    variances = [mean((x - mean(s)) ** 2 for x in s) for s in heads]
    telling = [s for s, v in zip(heads, variances, strict=True) if least_variance <= v <= most_variance]
    return [sqrt(mean(x * x for x in column)) for column in zip(*(telling or heads), strict=True)]


def key_size(im):
    return by_token(im, [fsum(abs(x) for head in im.key for x in head[i]) for i in range(len(im.key[0]))])


def qk_norm(im, of="k", order="largest"):
    states = {"k": [im.key], "q": [im.query], "qk": [im.query, im.key]}[of]
    total = [fsum(mean(norm(head[i]) for head in part) for part in states) for i in range(len(im.key[0]))]
    return [s if order == "largest" else -s for s in by_token(im, total)]


MASK = (1 << 64) - 1


def splitmix64(state):
    """One output of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    z = state & MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def random(im, seed=0):
    step = 0x9E3779B97F4A7C15
    stream = splitmix64((seed * 65537 + im.layer + 1) * step)
    return [float(splitmix64(stream + (i + 1) * step) >> 40) for i in range(im.n)]


def received_attention(im):
    return received(im)


def text_relevance(im):
    if not im.text:
        return [0.5] * im.n
    like = [row[0] for row in cosines(im.joint, [mean_vector(im.text)])]
    low, high = min(like), max(like)
    return [(c - low) / (high - low) if high - low > 1e-6 else 0.5 for c in like]


def token_norm(im, order="largest"):
    return [norm(x) if order == "largest" else -norm(x) for x in im.states]


def grid_lines(rows, columns, count):
    if 2 * count >= rows * columns:
        return rows
    return min(max(round(sqrt(count * rows / columns)), ceil(count / columns)), rows, count)


def regular_grid(rows, columns, count):
    """The (row, column) of each of `count` cells."""
    lines, dense, cells = grid_lines(rows, columns, count), 2 * count >= rows * columns, []
    for line in range(lines):
        own = (line + 1) * count // lines - line * count // lines
        row = floor(Fraction(2 * line + 1, 2) * rows / lines)
        shift = [Fraction(1, 4), Fraction(3, 4)][line % 2] if dense else Fraction(1, 2)
        cells += [(row, floor((c + shift) * columns / own)) for c in range(own)]
    return cells


def grid_of(im):
    """All frames as one image; tokens that others have left as one row."""
    frames, rows, columns = im.grid
    return (frames * rows, columns) if im.n == frames * rows * columns else (1, im.n)


def uniform(im):
    rows, columns = grid_of(im)
    cells = regular_grid(rows, columns, min(im.num_keep, im.n))
    return [float((i // columns, i % columns) in cells) for i in range(im.n)]
