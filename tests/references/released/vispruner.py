"""VisPruner: half by attention of [CLS]; the rest loses what repeats, round after round."""

from .arrays import cls_attention, cosines, kept, ranked, tower

INPUTS = ("q", "k", "hidden")
CASES = [{"num_keep": 13}, {"num_keep": 32}]
STEP = 8


def rest_of(rest, cos, wanted, raster):
    """What stays of the rest: even places by falling similarity, their first gone, and then the odd ones."""
    while len(rest) > wanted:
        rest = sorted(rest) if raster else rest
        even, odd = rest[::2], rest[1::2]
        like = [max(cos[i][j] for j in odd) for i in even]
        leave = min(STEP, len(rest) - wanted)
        rest = [even[place] for place in ranked(like)[leave:]] + odd
    return rest


def outputs(x, case):
    cos, order = cosines(tower(x)), ranked(cls_attention(x))
    count = int(case["num_keep"] * 0.5)
    important, wanted = order[:count], case["num_keep"] - count
    return {
        **kept(important + rest_of(order[count:], cos, wanted, raster=False)),
        "keep_raster_rounds": sorted(important + rest_of(order[count:], cos, wanted, raster=True)),
    }
