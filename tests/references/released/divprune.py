"""DivPrune: farthest first, on tokens behind the projector."""

from .arrays import COUNT, cosines, greedy, kept, projected, ranked, tower

INPUTS = ("hidden", "w1", "w2")
CASES = [{"num_keep": 13}, {"num_keep": 32}]


def chosen(states, count):
    far = 1 - cosines(states)
    nearest = [min(far[i][j] for j in range(COUNT) if j != i) for i in range(COUNT)]
    return greedy(count, lambda j, those: min(far[i][j] for i in those), ranked(nearest)[0])


def outputs(x, case):
    count = case["num_keep"]
    own = sorted(chosen(tower(x), count))
    return {**kept(chosen(projected(x), count)), "keep_of_tower_features": own}
