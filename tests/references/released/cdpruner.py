"""CDPruner: a determinantal point process of tokens behind the projector, weighted by relevance."""

from .arrays import COUNT, cosines, kept, projected, ranked, tower, unit

INPUTS = ("hidden", "text", "w1", "w2")
CASES = [{"num_keep": 13}, {"num_keep": 32}]


def relevance(x, sign):
    """Cosine with the first text vector, min-max scaled, [64]."""
    like = sign * (unit(projected(x)) @ unit(x["text"][0]))
    return (like - like.min()) / (like.max() - like.min())


def chosen(states, weight, count):
    """Each time the largest diagonal entry of L conditioned on those chosen so far (Schur complement)."""
    left, order = cosines(states) * weight[:, None] * weight, []
    for _ in range(count):
        s = ranked(left.diagonal(), [i for i in range(COUNT) if i not in order])[0]
        order.append(s)
        left = left - left[:, s : s + 1] * left[s : s + 1] / left[s, s]
    return order


def outputs(x, case):
    plus, minus, count = relevance(x, 1), relevance(x, -1), case["num_keep"]
    return {
        **kept(chosen(projected(x), plus, count)),
        **kept(chosen(projected(x), minus, count), "_its_sign"),
        "keep_of_tower_features": sorted(chosen(tower(x), plus, count)),
        "relevance": plus,
        "relevance_its_sign": minus,
    }
