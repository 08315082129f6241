"""ToDRE: the token most attended by [CLS], then always the one least similar to the chosen."""

from .arrays import cls_attention, cosines, greedy, kept, projected, ranked, tower

INPUTS = ("q", "k", "hidden", "w1", "w2")
CASES = [{"num_keep": 13}, {"num_keep": 32}]


def outputs(x, case):
    first = ranked(cls_attention(x))[0]

    def chosen(states):
        cos = cosines(states)
        return greedy(case["num_keep"], lambda j, those: -sum(cos[i][j] for i in those), first)

    return {**kept(chosen(projected(x))), "keep_of_tower_features": sorted(chosen(tower(x)))}
