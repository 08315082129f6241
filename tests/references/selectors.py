"""Selections that rank tokens: ascending indices among the tokens of one image."""

from math import ceil, floor, fsum, log, sqrt
from statistics import NormalDist

from .image import bounded, mean, ranked, salience
from .scorers import grid_lines, grid_of


def top_k(scores, im):
    return sorted(ranked(scores)[: im.num_keep])


def best_bounded(scores, count, im):
    return sorted(ranked(scores)[: bounded(count, im)])


def threshold(scores, im, at=None, deviations=None):
    if at is None:
        average = mean(scores)
        spread = sqrt(mean((s - average) ** 2 for s in scores))
        if deviations is None and im.share >= 1:
            return list(range(im.n))[: bounded(im.n, im)]
        c = NormalDist().inv_cdf(1 - im.share) if deviations is None else deviations
        at = average + c * spread
    return best_bounded(scores, sum(s > at for s in scores), im)


def mass(scores, im, p=0.9):
    low = min(scores)
    scores = [s - low if low < 0 else s for s in scores]
    if not any(scores):
        scores = [1.0] * im.n
    total, held, count = fsum(scores), 0.0, 0
    for i in ranked(scores):
        if held >= (p - 1e-9) * total:
            break
        held += scores[i]
        count += 1
    return best_bounded(scores, count, im)


def quantile(values, q):
    values, at = sorted(values), q * (len(values) - 1)
    low, high = values[floor(at)], values[ceil(at)]
    return low + (high - low) * (at - floor(at))


def iqr(scores, im, whisker=1.5):
    q1, q3 = quantile(scores, 0.25), quantile(scores, 0.75)
    return best_bounded(scores, sum(s > q3 + whisker * (q3 - q1) for s in scores), im)


def iqr_and_stride(scores, im, whisker=1.5):
    q1, q3 = quantile(scores, 0.25), quantile(scores, 0.75)
    order = ranked(scores, [i for i in range(im.n) if scores[i] > q3 + whisker * (q3 - q1)])
    step = int(int(1 / (max(1, len(order)) / im.n)) / 3)
    spaced = [i for i in range(0, im.n - 1, max(1, step)) if i not in order]
    count = bounded(len(order) + len(spaced), im)
    order += ranked(scores, spaced)
    order += ranked(scores, set(range(im.n)) - set(order))
    return sorted(order[:count])


def entropy(scores, im):
    share = salience(im)
    share = [a / fsum(share) for a in share]
    h = -fsum(a * log(a) for a in share if a > 0)
    if im.remaining == 0:
        return best_bounded(scores, im.target, im)
    spread = (h / log(im.n)) ** 2 if im.n > 1 else 1.0
    return best_bounded(
        scores, im.n - round(max(0, im.n - im.target) / sqrt(im.remaining) * (1 - spread)), im
    )


def grid_union(scores, im, stride=3):
    _, rows, columns = im.grid
    on_grid = [p // columns % rows % stride == 0 and p % columns % stride == 0 for p in im.place]
    order = sorted(range(im.n), key=lambda i: (not on_grid[i], -scores[i], i))
    return sorted(order[: im.num_keep])


def stratified(scores, im):
    rows, columns = grid_of(im)
    lines, cells = grid_lines(rows, columns, im.num_keep), {}
    for i in range(im.n):
        line = i // columns * lines // rows
        first, after = line * im.num_keep // lines, (line + 1) * im.num_keep // lines
        cells.setdefault(first + i % columns * (after - first) // columns, []).append(i)
    assert len(cells) == im.num_keep
    return sorted(ranked(scores, own)[0] for own in cells.values())


def anchors_buffers(scores, im, alpha=0.1, anchor_depth=None):
    _, rows, columns = im.grid
    middle = im.seen[max(layer for layer in im.seen if layer <= im.layer)]
    anchors = set(ranked(middle)[: max(1, round(im.num_keep * alpha / 5))])

    at = [(p // columns // rows, p // columns % rows, p % columns) for p in im.place]

    def touch(a, b):
        return a[0] == b[0] and abs(a[1] - b[1]) + abs(a[2] - b[2]) == 1

    buffers = {i for i in range(im.n) if any(touch(at[i], at[a]) for a in anchors)} - anchors
    order = ranked(middle, anchors) + ranked(scores, buffers)
    order += ranked(scores, set(range(im.n)) - anchors - buffers)
    return sorted(order[: im.num_keep])


def crop_quota(scores, im, crops=4, power=1.0):
    _, rows, columns = im.grid
    crop = []
    for p in im.place:
        frame, row, column = p // (rows * columns), p // columns % rows, p % columns
        crop.append((frame, row * crops // rows, column * crops // columns))
    members = {c: [i for i in range(im.n) if crop[i] == c] for c in sorted(set(crop))}
    best, weight, least = {}, {}, 1e-6 * mean(map(abs, scores)) + 1e-12
    for c, own in members.items():
        spread = {i: spread_in(im.projected_cos, i, own) for i in own}
        gamma = mean(abs(scores[i]) for i in own) / max(mean(spread.values()), 1e-12)
        h = {i: scores[i] + gamma * spread[i] for i in own}
        best[c], weight[c] = ranked(h, own), max(least, mean(h.values())) ** power
    share = {c: round(w / fsum(weight.values()), 6) for c, w in weight.items()}
    count = {c: floor((share[c] + 1e-6) * im.num_keep) for c in members}
    kept = [i for c in members for i in best[c][: count[c]]]
    turn = 1
    while len(kept) < im.num_keep:
        more = [(-share[c], best[c][r]) for c in members if (r := count[c] + turn - 1) < len(best[c])]
        kept += [i for _, i in sorted(more)][: im.num_keep - len(kept)]
        turn += 1
    return sorted(kept)


def spread_in(cos, i, own):
    """Variance of the cosines of a token with its crop, its own entry 0 and the divisor one less."""
    row = [cos[i][j] if j != i else 0.0 for j in own]
    others = max(1, len(own) - 1)
    average = fsum(row) / others
    return fsum((c - average) ** 2 for c in row) / others if len(own) > 1 else 0.0


def unlike_ranked(scores, im, by_score=0.5):
    leave = im.n - im.num_keep
    low = round(leave * by_score)
    while leave - low > (im.n - low) // 2:
        low += 1
    rest = ranked(scores)[: im.n - low]
    cos = im.key_cos
    upper, lower = rest[: (len(rest) + 1) // 2], rest[(len(rest) + 1) // 2 :]
    like = {i: max(cos[i][j] for j in upper) for i in lower}
    stays = sorted(lower, key=lambda i: (like[i], rest.index(i)))[: im.num_keep - len(upper)]
    return sorted(upper + stays)


def pivots(scores, im, pivots=8):
    chosen = ranked(scores)[: max(1, min(pivots, im.num_keep // 2))]
    cos, keep = im.cos, list(chosen)
    for turn, pivot in enumerate(chosen):
        share = [r for r in range(im.num_keep - len(chosen)) if r % len(chosen) == turn]
        rest = set(range(im.n)) - set(keep)
        keep += sorted(rest, key=lambda i: (cos[pivot][i], i))[: len(share)]
    return sorted(keep)


def important_plus_diverse(scores, im, share=0.5, step=8):
    count = floor(im.num_keep * share)
    important, rest = ranked(scores)[:count], ranked(scores)[count:]
    cos = im.cos
    while len(rest) > im.num_keep - len(important):
        even, odd = rest[::2], rest[1::2]
        like = {i: max((cos[i][j] for j in odd), default=0.0) for i in even}
        leave = min(step, len(rest) - im.num_keep + count, len(even))
        rest = sorted(even, key=lambda i: (-like[i], rest.index(i)))[leave:] + odd  # noqa: B023
    return sorted(important + rest[: im.num_keep - count])
